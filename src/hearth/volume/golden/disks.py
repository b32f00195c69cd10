"""What is done with the file that a volume is, wherever it lies: names that change places, QEMU's locks, growing."""

from __future__ import annotations

import ctypes
import fcntl
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from hearth.host.qemu_nodes import target_of
from hearth.host.threads import on_own_thread
from hearth.host.tool import Limits, run_enclosed
from hearth.volume.base import AttachMode
from hearth.volume.golden.base import PopulateFailed
from hearth.volume.holds import is_free

_libc = ctypes.CDLL(None, use_errno=True)

T = TypeVar("T")

TOOL_TIMEOUT_S = 60.0
HEADER_BYTES = 1 << 20
AT_FDCWD, RENAME_NOREPLACE, RENAME_EXCHANGE = -100, 1, 2
"""linux/fs.h; renameat2(2)"""
_FLOCK = struct.Struct("hhqqi4x")
"""struct flock of 64-bit Linux: type, whence, start, length, process id."""
QEMU_LOCKS = (100, 200)
"""First and number of the bytes that QEMU locks of an image it has open (block/file-posix.c)."""


def exchange(one: Path, other: Path) -> None:
    """Let two names of one file system change places, in one step."""
    _rename(one, other, RENAME_EXCHANGE)


def rename_new(path: Path, name: Path) -> None:
    """Give a file a name that nothing has.

    Raises:
        FileExistsError: something has it.
    """
    _rename(path, name, RENAME_NOREPLACE)


def _rename(path: Path, name: Path, flags: int) -> None:
    if _libc.renameat2(AT_FDCWD, os.fsencode(path), AT_FDCWD, os.fsencode(name), flags) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(name))


def is_there(path: Path) -> bool:
    """Tell whether anything has this name, be it a symlink to nowhere."""
    return os.path.lexists(path)


def is_held(path: Path) -> bool:
    """Tell whether a QEMU or a sandbox of this host has the file open."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    try:
        first, count = QEMU_LOCKS
        found = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, _FLOCK.pack(fcntl.F_WRLCK, 0, first, count, 0))
        return _FLOCK.unpack(found)[0] != fcntl.F_UNLCK or not is_free(descriptor, AttachMode.READ_WRITE)
    finally:
        os.close(descriptor)


async def grow_qcow2(descriptor: int, size_bytes: int) -> None:
    """Make the disk in an open qcow2 file larger.

    Raises:
        PopulateFailed: qemu-img refused.
    """
    outcome = await run_enclosed(
        ["qemu-img", "resize", "-q", target_of("qcow2", 3), str(size_bytes)],
        descriptors={3: descriptor},
        limits=Limits(memory_bytes=2 << 30, cpu_s=int(TOOL_TIMEOUT_S), file_bytes=size_bytes + HEADER_BYTES),
        timeout_s=TOOL_TIMEOUT_S,
    )
    if outcome.status != 0:
        raise PopulateFailed("the volume could not be grown", details=f"{outcome.how}: {outcome.said[-300:]}")


async def to_its_end(work: Callable[[], T]) -> T:
    """Run what blocks and must not stop half-way on a thread."""
    return await on_own_thread("golden-volume", work)
