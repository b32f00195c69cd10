"""Devices of volumes: waiting until they are there, and removing what is on them."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import functools
import os
import struct
import threading
from pathlib import Path

from hearth.errors import Conflict, HostUnfit
from hearth.host.threads import on_own_thread, on_stoppable_thread
from hearth.volume.golden.base import NAME_FIELD, PopulateFailed
from hearth.volume.golden.populate import prove_zero, size_of, zero

BLKDISCARD = 0x1277
"""linux/fs.h: _IO(0x12, 119), with first byte and length."""
APPEARS_WITHIN_S = 30.0
LOOK_EVERY_S = 0.02


def device_path(group: str, name: str) -> Path:
    """Give where LVM, or udev by LVM's rules, shows a volume."""
    return Path("/dev") / group / name


def other_path(group: str, name: str) -> Path:
    """Give where device-mapper shows the same: hyphens in names are doubled there."""
    doubled = (part.replace("-", "--") for part in (group, name))
    return Path("/dev/mapper") / "-".join(doubled)


async def until_there(path: Path) -> Path:
    """Wait for a device that was just made: where udev makes the nodes it may be a moment later.

    Raises:
        HostUnfit: it does not come.
    """
    deadline_s = asyncio.get_running_loop().time() + APPEARS_WITHIN_S
    while not os.access(path, os.F_OK):
        if asyncio.get_running_loop().time() > deadline_s:
            raise HostUnfit(
                "a volume has no device",
                details=f"{path} did not come within {APPEARS_WITHIN_S:g} s",
                resolution="is udev running, or in a container 'activation { udev_sync=0 udev_rules=0 }' set for LVM?",
            )
        await asyncio.sleep(LOOK_EVERY_S)
    return path


async def wipe(path: Path, start: int = 0) -> None:
    """Let a device read as zeros from byte ``start`` on, and prove it; cancelled, it stops half-way.

    Raises:
        Conflict: somebody has it mounted.
        PopulateFailed: its storage is broken, or does not zero.
    """
    try:
        await on_stoppable_thread("wipe a volume", functools.partial(_wipe, path, start))
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise Conflict(
                "the volume is in use", details=f"{path} is held", resolution="end whoever uses it", field=NAME_FIELD
            ) from error
        raise PopulateFailed("the volume could not be zeroed", details=f"{path}: {error.strerror}") from error


def _wipe(path: Path, start: int, unwanted: threading.Event) -> None:
    descriptor = os.open(path, os.O_RDWR | os.O_EXCL | os.O_CLOEXEC)
    try:
        end = size_of(descriptor)
        zero(descriptor, start, end, unwanted)
        os.fsync(descriptor)
        if not unwanted.is_set():
            prove_zero(descriptor, start, end)
    finally:
        os.close(descriptor)


async def give_back(path: Path) -> None:
    """Tell the storage below that a device's bytes are of no use any more, where it wants to know."""
    await on_own_thread("discard a volume", functools.partial(_give_back, path))


def _give_back(path: Path) -> None:
    with contextlib.suppress(OSError):  # most devices cannot, and then nothing has to be done
        descriptor = os.open(path, os.O_RDWR | os.O_EXCL | os.O_CLOEXEC)
        try:
            fcntl.ioctl(descriptor, BLKDISCARD, struct.pack("QQ", 0, size_of(descriptor)))
        finally:
            os.close(descriptor)
