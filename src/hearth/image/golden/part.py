"""A file that is being fetched: reserved as a whole, filled in chunks in any order, with a journal of what is in it.

<name>.part      as long as the object from the start, so that there is room for all of it
<name>.journal   a line of JSON about the object, then a line for each chunk: its number and its mark: the SHA-256
                 of all bytes up to its end where these were hashed already, else the CRC-32 of its own

Nothing is synced on the way: after a power cut the marks tell which chunks did arrive. A CRC is enough for that, for
the whole is hashed in the end; where that has come so far, its state is there for nothing.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import mmap
import os
import re
import zlib
from collections.abc import Sequence
from pathlib import Path

import msgspec

from hearth.host import files

PART_SUFFIX = ".part"
JOURNAL_SUFFIX = ".journal"
CHUNK_MIN_BYTES = 64 * 1024
CHUNK_MAX_BYTES = 4 * 1024 * 1024
CHUNKS_WANTED = 32
"""A cut loses at most a chunk for each range: 3 % of the image for a lone one. Each chunk costs a third of a ms."""
IOV_MAX = 1024
SYNC_FILE_RANGE_WRITE = 2
"""linux/limits.h, linux/fs.h; sync_file_range(2): a hint, whose failure says nothing."""
_libc = ctypes.CDLL(None, use_errno=True)
LINE = re.compile(rb"(\d+) ([0-9a-f]{8}|[0-9a-f]{64})")
CRC_DIGITS = 8
DIRECT_MIN_BYTES = 512 * 1024 * 1024
"""Smaller images stay in the page cache, where whoever fills the volume finds them."""
ALIGNMENT = 4096


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """What a part is a part of; another origin means to begin anew. ``identity`` is hashed: URLs may hold secrets."""

    identity: str
    validator: str
    version: str | None
    size_bytes: int
    chunk_bytes: int


def chunk_size(size_bytes: int) -> int:
    """Give the size of chunks for an object: a power of two."""
    chunk_bytes = CHUNK_MIN_BYTES
    while chunk_bytes < CHUNK_MAX_BYTES and chunk_bytes * CHUNKS_WANTED < size_bytes:
        chunk_bytes *= 2
    return chunk_bytes


class Part:
    """An open part. Its methods block; different threads may store different chunks at once."""

    def __init__(self, stem: Path, origin: Origin) -> None:
        self.path = stem.with_name(stem.name + PART_SUFFIX)
        self.journal_path = stem.with_name(stem.name + JOURNAL_SUFFIX)
        self.origin = origin
        self.count = -(-origin.size_bytes // origin.chunk_bytes)
        self._file = self._direct = self._journal = -1
        self._aligned: mmap.mmap | None = None

    def open(self) -> dict[int, str]:
        """Reserve the space and give the chunks that are said to be there: number → mark.

        Raises:
            NoSpace: there is not enough; nothing is left.
        """
        known = self._known() if self.origin.validator else None
        if known is None:
            self.remove()
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            with files.space_errors(self.path):
                self._file = os.open(self.path, flags, 0o600)
                _reserve(self._file, self.origin.size_bytes)
                self._journal = os.open(self.journal_path, flags | os.O_APPEND, 0o600)
                if known is None:
                    os.write(self._journal, msgspec.json.encode(self.origin) + b"\n")
                else:
                    os.write(self._journal, b"\n")  # ends a line that was cut off
        except BaseException:
            self.close()
            self.remove()
            raise
        return known or {}

    def store(self, index: int, pieces: Sequence[memoryview], *, is_read_soon: bool) -> None:
        """Write a chunk, given in pieces; the disk begins with it at once, so that the last sync has little left to do.

        Of a large image, what nobody reads soon goes past the page cache where that is possible: the kernel's copying
        took as long as hashing. Called by one thread.
        """
        with files.space_errors(self.path):
            if not is_read_soon and self._store_direct(index, pieces):
                return
            left, position = list(pieces), index * self.origin.chunk_bytes
            while left:
                written = os.pwritev(self._file, left[:IOV_MAX], position)
                position += written
                while left and written >= len(left[0]):
                    written -= len(left.pop(0))
                if left and written:
                    left[0] = left[0][written:]
        begin = ctypes.c_int64(index * self.origin.chunk_bytes)
        _libc.sync_file_range(self._file, begin, ctypes.c_int64(self.length(index)), SYNC_FILE_RANGE_WRITE)

    def _store_direct(self, index: int, pieces: Sequence[memoryview]) -> bool:
        """Write a chunk past the page cache; False where that cannot be, or not as a whole."""
        length = self.length(index)
        if self.origin.size_bytes < DIRECT_MIN_BYTES or length % ALIGNMENT:
            return False
        if not self._open_direct() or self._aligned is None:
            return False
        position = 0
        for piece in pieces:
            self._aligned[position : position + len(piece)] = piece
            position += len(piece)
        try:
            with memoryview(self._aligned) as whole, whole[:length] as chunk:
                return os.pwrite(self._direct, chunk, index * self.origin.chunk_bytes) == length
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            return False

    def _open_direct(self) -> bool:
        """Have what direct writing takes; False where the file system has no such thing."""
        if self._aligned is None:
            self._aligned = mmap.mmap(-1, self.origin.chunk_bytes)
            with contextlib.suppress(OSError):
                self._direct = os.open(self.path, os.O_WRONLY | os.O_DIRECT | os.O_CLOEXEC | os.O_NOFOLLOW)
        return self._direct >= 0

    def note(self, index: int, mark: str) -> None:
        """Write down that a chunk is there; threads may do so at once."""
        with files.space_errors(self.path):
            os.write(self._journal, f"{index} {mark}\n".encode())

    def load(self, index: int) -> bytes:
        """Read a chunk back; shorter than it should be when the file was cut."""
        return os.pread(self._file, self.length(index), index * self.origin.chunk_bytes)

    def length(self, index: int) -> int:
        """Give a chunk's bytes: the last one is shorter."""
        return min(self.origin.chunk_bytes, self.origin.size_bytes - index * self.origin.chunk_bytes)

    def sync(self) -> None:
        """Make the file durable."""
        os.fsync(self._file)

    def close(self) -> None:
        """Leave it as it is, for a later try."""
        for descriptor in (self._file, self._direct, self._journal):
            if descriptor >= 0:
                os.close(descriptor)
        self._file = self._direct = self._journal = -1
        if self._aligned is not None:
            self._aligned.close()
            self._aligned = None

    def is_there(self) -> bool:
        """Whether there is anything to go on with."""
        return self.path.exists()

    def remove(self) -> None:
        """Delete what there is of it."""
        self.journal_path.unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)

    def _known(self) -> dict[int, str] | None:
        """Give the journal's chunks; None when it is of another object or none at all."""
        try:
            first, *lines = self.journal_path.read_bytes().split(b"\n")
            if msgspec.json.decode(first, type=Origin) != self.origin or self.path.stat().st_size == 0:
                return None
        except (FileNotFoundError, msgspec.DecodeError):
            return None
        found = (LINE.fullmatch(line) for line in lines)
        chunks = {int(match[1]): match[2].decode() for match in found if match is not None}
        return {index: mark for index, mark in chunks.items() if index < self.count}


def checksum(pieces: Sequence[memoryview]) -> str:
    """Give the CRC-32 of a chunk as a mark: 4 GiB a second."""
    found = 0
    for piece in pieces:
        found = zlib.crc32(piece, found)
    return f"{found:08x}"


def _reserve(descriptor: int, size_bytes: int) -> None:
    """Give a file its size and its blocks; where the file system cannot, its size and a look at what is free."""
    try:
        os.posix_fallocate(descriptor, 0, size_bytes)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENODEV):
            raise
        free = os.fstatvfs(descriptor)
        if free.f_bavail * free.f_frsize < size_bytes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
    os.ftruncate(descriptor, size_bytes)
