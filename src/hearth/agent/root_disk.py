"""Grows the root file system to its disk, which the host has made larger. The kernel does it while all is mounted."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import time

from hearth.agent.bringup.mounts import DEVICE_TIMEOUT_S
from hearth.agent.mount_table import read_mounts
from hearth.agent.state import Agent

_RESIZE_FS = 0x40086610
"""``EXT4_IOC_RESIZE_FS``, _IOW('f', 16, __u64): how many blocks it is to have (fs/ext4/ext4.h)."""
_POLL_S = 0.002


def grow_root(agent: Agent, size_bytes: int) -> None:
    """Let the root file system fill a disk of ``size_bytes``; one that does already is left alone.

    Raises:
        OSError: the disk did not become that large, or the kernel refused.
    """
    root = os.open("/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        block_bytes = os.fstatvfs(root).f_bsize
        _wait_for_size(_root_disk(agent), size_bytes)
        fcntl.ioctl(root, _RESIZE_FS, struct.pack("=Q", size_bytes // block_bytes))
    except OSError as error:
        raise OSError(error.errno, f"to {size_bytes} bytes: {os.strerror(error.errno or 0)}", "/") from error
    finally:
        os.close(root)


def _root_disk(agent: Agent) -> str:
    mounts = [] if agent.doors.proc is None else read_mounts(agent.doors.proc)
    for mount in mounts:
        if mount.point == "/" and mount.source.startswith("/dev/"):
            return mount.source
    raise OSError(errno.ENODEV, os.strerror(errno.ENODEV), "/")


def _wait_for_size(device: str, size_bytes: int) -> None:
    """Wait until the kernel has heard how large the disk has become.

    Raises:
        TimeoutError: it has not.
    """
    deadline = time.monotonic() + DEVICE_TIMEOUT_S
    while disk_size(device) < size_bytes:
        if time.monotonic() > deadline:
            raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT), device)
        time.sleep(_POLL_S)


def disk_size(device: str) -> int:
    """Tell the size of a disk in bytes."""
    descriptor = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.lseek(descriptor, 0, os.SEEK_END)
    finally:
        os.close(descriptor)
