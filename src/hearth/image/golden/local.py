"""Images from directories of this host that the operator enabled."""

from __future__ import annotations

import functools
import os
import stat
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path

from hearth.host.threads import on_own_thread
from hearth.image.golden.base import (
    CHECKSUM_FILE_MAX_BYTES,
    CHECKSUM_SUFFIX,
    URL_FIELD,
    Head,
    SourceMissing,
    SourceRefused,
    changed,
    cut_off,
    missing,
    too_long_a_checksum_file,
)

PIECE_BYTES = 1 << 20


class LocalSource:
    """Implements ``hearth.image.golden.base.Source``. Links are not followed, on no step of the way."""

    def __init__(self, directories: Sequence[Path], path: str) -> None:
        self.url = self.identity = f"file://{path}"
        for directory in directories:
            below = Path(os.path.normpath(path))
            if path == str(below) and below != directory and below.is_relative_to(directory):
                self._directory, self._names = directory, below.relative_to(directory).parts
                return
        raise SourceRefused(
            "files of this host are not read as images",
            details=f"{self.url[:200]} is not in a directory that the operator enabled",
            resolution="have its directory enabled, or put the image into object storage",
            field=URL_FIELD,
        )

    async def head(self) -> Head:
        descriptor = self._open("")
        try:
            return _head(descriptor)
        finally:
            os.close(descriptor)

    async def checksum_file(self) -> bytes | None:
        try:
            descriptor = self._open(CHECKSUM_SUFFIX)
        except SourceMissing:
            return None
        with os.fdopen(descriptor, "rb") as file:
            data = file.read(CHECKSUM_FILE_MAX_BYTES + 1)
        if len(data) > CHECKSUM_FILE_MAX_BYTES:
            raise too_long_a_checksum_file(self.url)
        return data

    async def read(self, head: Head, start: int, end: int) -> AsyncGenerator[memoryview, None]:
        descriptor = self._open("")
        try:
            if _head(descriptor) != head:
                raise changed(self.url)
            position = start
            while position < end:
                piece = await on_own_thread(
                    "image-read", functools.partial(os.pread, descriptor, min(PIECE_BYTES, end - position), position)
                )
                if not piece:
                    raise cut_off(self.url, start, end, position - start)
                position += len(piece)
                yield memoryview(piece)
            if _head(descriptor) != head:
                raise changed(self.url)
        finally:
            os.close(descriptor)

    async def close(self) -> None:
        """Nothing is kept open."""

    def _open(self, suffix: str) -> int:
        """Go down from the enabled directory, name by name, through directories alone."""
        here = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        names = (*self._names[:-1], self._names[-1] + suffix)
        try:
            for name in names[:-1]:
                flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
                inner = os.open(name, flags, dir_fd=here)
                os.close(here)
                here = inner
            # A named pipe would wait for a writer.
            found = os.open(names[-1], os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=here)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise missing(self.url + suffix) from error
        except OSError as error:
            raise self._refused(f"it cannot be opened: {error.strerror}") from error
        finally:
            os.close(here)
        if not stat.S_ISREG(os.fstat(found).st_mode):
            os.close(found)
            raise self._refused("it is no file")
        return found

    def _refused(self, what: str) -> SourceRefused:
        return SourceRefused(
            "the image cannot be read",
            details=f"{self.url[:200]}: {what}",
            resolution="name a plain file that the daemon may read; links are not followed",
            field=URL_FIELD,
        )


def _head(descriptor: int) -> Head:
    status = os.fstat(descriptor)
    return Head(size_bytes=status.st_size, validator=f"{status.st_dev}-{status.st_ino}-{status.st_mtime_ns}")
