"""Volumes of a machine: disks beside the root's, mounted where the host says and given back when it takes them away."""

from __future__ import annotations

import errno
import os
import threading
import time

from hearth.agent import syscalls
from hearth.agent.bringup.mounts import DEVICE_TIMEOUT_S, wait_for_device
from hearth.agent.files.paths import make_parents
from hearth.agent.mount_table import Mount, read_mounts
from hearth.agent.refusal import refused
from hearth.agent.root_disk import disk_size
from hearth.agent.state import Agent
from hearth.wire.faults import Fault
from hearth.wire.messages import VolumeMount

_DISK_PREFIX = "/dev/vd"
_FLAGS = syscalls.MS_NOATIME | syscalls.MS_NOSUID | syscalls.MS_NODEV
_POLL_S = 0.002
_lock = threading.Lock()
"""One change of the mounts at a time, from whatever connection."""


def mount_volumes(agent: Agent, wanted: list[VolumeMount]) -> None:
    """Mount what is not mounted yet; a machine that was restored has its volumes mounted already.

    What root in the sandbox has mounted over a volume, or in its place, does not keep the machine from waking.

    Raises:
        OSError: naming the path or device.
    """
    if not wanted:
        return
    with _lock:
        _mount_missing(agent, wanted, over_others=True)


def settle_volumes(agent: Agent, wanted: list[VolumeMount]) -> None:
    """Have these volumes mounted and no other: those left out are unmounted, and not one of them is in use any more.

    Raises:
        Refused: one that was left out is still in use, or something else is mounted where one is to be.
        OSError: naming the path or device.
    """
    with _lock:
        kept = {volume.device for volume in wanted}
        left_out = [mount for mount in _volume_mounts(agent) if _disk_of(mount) not in kept]
        for mount in reversed(left_out):  # the newest first, as one may lie in another
            syscalls.unmount(mount.point)
        for device in sorted({_disk_of(mount) for mount in left_out}):
            _require_unused(device)
        _mount_missing(agent, wanted, over_others=False)


def _mount_missing(agent: Agent, wanted: list[VolumeMount], *, over_others: bool) -> None:
    mounts = _mounts(agent)
    for volume in wanted:
        there = [mount.source for mount in mounts if mount.point == volume.mount]
        if volume.device in there:
            continue
        if there and not over_others:
            raise refused(Fault.CONFLICT, f"{volume.mount}: {there[-1]} is mounted there already")
        _mount(agent, volume)


def _mount(agent: Agent, volume: VolumeMount) -> None:
    wait_for_device(volume.device)
    _wait_for_medium(volume.device)
    make_parents(agent, volume.mount)
    flags = _FLAGS | (syscalls.MS_RDONLY if volume.read_only else 0)
    syscalls.mount(volume.device, volume.mount, volume.fs, flags)


def _wait_for_medium(device: str) -> None:
    """Wait until the kernel has heard that there is something in a disk that was empty.

    Raises:
        TimeoutError: it has not.
    """
    deadline = time.monotonic() + DEVICE_TIMEOUT_S
    while disk_size(device) == 0:
        if time.monotonic() > deadline:
            raise TimeoutError(errno.ETIMEDOUT, f"no volume came within {DEVICE_TIMEOUT_S:.0f} s", device)
        time.sleep(_POLL_S)


def _require_unused(device: str) -> None:
    """See that nobody has a disk mounted, in no mount namespace: the kernel opens a disk exclusively for one alone.

    Raises:
        Refused: somebody has.
    """
    try:
        os.close(os.open(device, os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC))
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        raise refused(Fault.CONFLICT, f"{device}: still mounted by a process with mounts of its own") from error


def _volume_mounts(agent: Agent) -> list[Mount]:
    mounts = _mounts(agent)
    root = {_disk_of(mount) for mount in mounts if mount.point == "/"}
    return [mount for mount in mounts if mount.source.startswith(_DISK_PREFIX) and _disk_of(mount) not in root]


def _mounts(agent: Agent) -> list[Mount]:
    return [] if agent.doors.proc is None else read_mounts(agent.doors.proc)


def _disk_of(mount: Mount) -> str:
    """Give the disk of a mount, also of one of its partitions."""
    return mount.source.rstrip("0123456789")
