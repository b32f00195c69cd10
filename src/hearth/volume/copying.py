"""Copies of sparse files: shared blocks where the file system can (FICLONE), else the written ranges alone."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from hearth.host.files import data_ranges, space_errors
from hearth.host.threads import on_own_thread
from hearth.host.waiting import until_done

T = TypeVar("T")

FICLONE = 0x40049409
"""linux/fs.h; ioctl_ficlone(2)"""
CANNOT_SHARE = frozenset({errno.EOPNOTSUPP, errno.EINVAL, errno.ENOTTY, errno.EXDEV, errno.ENOSYS, errno.EPERM})
CHUNK_BYTES = 16 * 1024 * 1024
"""What is copied between two looks at whether anybody still wants it: some 20 ms."""


async def copy_sparse(source: int, target: Path) -> bool:
    """Copy an open file into a new one (0600) of the same size with the same holes; a cancelled copy stops soon.

    Returns:
        True when the two share their blocks, so that it took no space and no time to speak of.

    Raises:
        NoSpace: the file system is full.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    with space_errors(target):
        descriptor = os.open(target, flags, 0o600)
    try:
        return await copy_into(source, descriptor, target)
    finally:
        os.close(descriptor)


def _tell_nobody(_done: int, _total: int) -> None:
    """Nobody looks."""


async def copy_into(source: int, target: int, name: Path, on_bytes: Callable[[int, int], None] = _tell_nobody) -> bool:
    """Copy an open file into another that is empty, called ``name``, and tell how far it is; as ``copy_sparse``."""
    loop, unwanted = asyncio.get_running_loop(), threading.Event()

    def told(done: int, total: int) -> None:
        loop.call_soon_threadsafe(on_bytes, done, total)

    return await _unless(unwanted, lambda: _copy(source, target, name, unwanted, told))


async def copy_part(source: int, target: int, source_offset: int, target_offset: int, size_bytes: int) -> None:
    """Copy what is written in a part of an open file to a place in another one; a cancelled copy stops soon.

    What are holes in the source stays as it is in the target.

    Raises:
        OSError: as of reading and writing.
    """
    unwanted = threading.Event()
    places = (source_offset, target_offset, size_bytes)
    await _unless(unwanted, lambda: _copy_part(source, target, places, unwanted))


async def _unless(unwanted: threading.Event, copy: Callable[[], T]) -> T:
    """Copy on a thread, and tell it when nobody wants it any more."""
    work = asyncio.ensure_future(on_own_thread("volume-copy", copy))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        unwanted.set()
        await until_done(work)
        raise


def _copy_part(source: int, target: int, places: tuple[int, int, int], unwanted: threading.Event) -> None:
    source_offset, target_offset, size_bytes = places
    for data_start, data_end in data_ranges(source):
        position, end = max(data_start, source_offset), min(data_end, source_offset + size_bytes)
        while position < end and not unwanted.is_set():
            count = min(CHUNK_BYTES, end - position)
            copied = os.copy_file_range(source, target, count, position, target_offset + position - source_offset)
            if copied == 0:  # the source was cut short by somebody
                raise OSError(errno.EIO, "the volume became shorter while it was copied")
            position += copied


def _copy(source: int, target: int, name: Path, unwanted: threading.Event, told: Callable[[int, int], None]) -> bool:
    with space_errors(name):
        if share(source, target):
            return True
        size = os.fstat(source).st_size
        os.ftruncate(target, size)
        for start, end in data_ranges(source):
            position = start
            while position < end and not unwanted.is_set():
                count = min(CHUNK_BYTES, end - position)
                copied = os.copy_file_range(source, target, count, position, position)
                if copied == 0:  # the source was cut short by somebody
                    raise OSError(errno.EIO, "the volume became shorter while it was copied", str(name))
                position += copied
                told(position, size)
        return False


def share(source: int, target: int) -> bool:
    """Let an empty file share all blocks of another; False where the file system cannot."""
    try:
        fcntl.ioctl(target, FICLONE, source)
    except OSError as error:
        if error.errno in CANNOT_SHARE:
            return False
        raise
    return True
