"""Copies of sparse files: shared blocks where the file system can (FICLONE), else the written ranges alone."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import threading
from pathlib import Path

from hearth.host.files import data_ranges, space_errors
from hearth.host.threads import on_own_thread
from hearth.host.waiting import until_done

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
    unwanted = threading.Event()
    work = asyncio.ensure_future(on_own_thread("volume-copy", lambda: _copy(source, target, unwanted)))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        unwanted.set()
        await until_done(work)
        raise


def _copy(source: int, target: Path, unwanted: threading.Event) -> bool:
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    with space_errors(target), open(os.open(target, flags, 0o600), "wb") as file:
        if _share(source, file.fileno()):
            return True
        os.ftruncate(file.fileno(), os.fstat(source).st_size)
        for start, end in data_ranges(source):
            position = start
            while position < end and not unwanted.is_set():
                count = min(CHUNK_BYTES, end - position)
                copied = os.copy_file_range(source, file.fileno(), count, position, position)
                if copied == 0:  # the source was cut short by somebody
                    raise OSError(errno.EIO, "the volume became shorter while it was copied", str(target))
                position += copied
        return False


def _share(source: int, target: int) -> bool:
    try:
        fcntl.ioctl(target, FICLONE, source)
    except OSError as error:
        if error.errno in CANNOT_SHARE:
            return False
        raise
    return True
