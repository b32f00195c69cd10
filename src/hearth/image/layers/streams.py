"""Bytes out of compressed files, in bounded pieces and bounded in sum: gzip, zstd, xz or none, told by the first bytes.

What a file is called or said to be does not matter; whoever knows the checksum of what comes out compares ``sha256``.
"""

from __future__ import annotations

import hashlib
import io
import lzma
import zlib
from collections.abc import Callable, Iterator
from typing import IO, BinaryIO, cast

import zstandard

from hearth.image.layers.refused import ImageRefused, refused

CHUNK_BYTES = 256 * 1024
XZ_MEMORY_BYTES = 256 * 1024 * 1024
ZSTD_WINDOW_BYTES = 128 * 1024 * 1024
GZIP, ZSTD, XZ, BZIP2 = b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"\xfd7zXZ\x00", b"BZh"
MAGIC_BYTES = 6

OnBytes = Callable[[int], None]
"""Called with the number of compressed bytes just read."""


class ByteStream:
    """What comes out of a file, read once from front to end.

    Args:
        max_bytes: more than this many bytes are not given.
        on_bytes: told of what is read of the file itself.
    """

    def __init__(self, file: BinaryIO, *, max_bytes: int, on_bytes: OnBytes | None = None) -> None:
        self.position = 0
        self._pieces = _inflated(_Counted(file, on_bytes))
        self._left = memoryview(b"")
        self._max_bytes = max_bytes
        self._digest = hashlib.sha256()

    def read(self, size: int) -> bytes:
        """Give ``size`` bytes, fewer only at the end.

        Raises:
            ImageRefused: the compression is damaged, or too much comes out.
        """
        if size <= len(self._left):
            return self._take(size)
        parts = []
        while size > 0 and self._fill():
            piece = self._take(min(size, len(self._left)))
            parts.append(piece)
            size -= len(piece)
        return b"".join(parts)

    def pieces(self, size: int) -> Iterator[memoryview]:
        """Give ``size`` bytes piece by piece. Raises ImageRefused where there are fewer."""
        while size > 0:
            if not self._fill():
                raise refused(f"it ends {size} bytes too early")
            piece = self._left[:size]
            self._left = self._left[len(piece) :]
            self.position += len(piece)
            size -= len(piece)
            yield piece

    def skip(self, size: int) -> None:
        """Pass over ``size`` bytes. Raises ImageRefused where there are fewer."""
        for _ in self.pieces(size):
            pass

    def sha256(self) -> str:
        """Read what is left and give the checksum of everything that came out, in hex."""
        while self._fill():
            self.position += len(self._left)
            self._left = memoryview(b"")
        return self._digest.hexdigest()

    def _take(self, size: int) -> bytes:
        taken = bytes(self._left[:size])
        self._left = self._left[size:]
        self.position += size
        return taken

    def _fill(self) -> bool:
        while not self._left:
            piece = next(self._pieces, None)
            if piece is None:
                return False
            if self.position + len(piece) > self._max_bytes:
                raise refused(
                    f"it holds more than {self._max_bytes} bytes",
                    resolution="make it smaller, or ask the operator for a higher --image-max-mib",
                )
            self._digest.update(piece)
            self._left = memoryview(piece)
        return True


class _Counted:
    """A file whose reader is told of."""

    def __init__(self, file: BinaryIO, on_bytes: OnBytes | None) -> None:
        self._file = file
        self._on_bytes = on_bytes

    def read(self, size: int = CHUNK_BYTES) -> bytes:
        data = self._file.read(size)
        if self._on_bytes is not None and data:
            self._on_bytes(len(data))
        return data


def compression_of(start: bytes) -> str | None:
    """Name the compression that these first bytes tell of; None where there is none."""
    for magic, name in ((GZIP, "gzip"), (ZSTD, "zstd"), (XZ, "xz"), (BZIP2, "bzip2")):
        if start.startswith(magic):
            return name
    return None


def _inflated(file: _Counted) -> Iterator[bytes]:
    first = file.read(CHUNK_BYTES)
    while len(first) < MAGIC_BYTES and (more := file.read(MAGIC_BYTES - len(first))):
        first += more
    try:
        match compression_of(first):
            case "gzip":
                yield from _gunzip(first, file)
            case "zstd":
                yield from _unzstd(first, file)
            case "xz":
                yield from _unxz(first, file)
            case "bzip2":
                raise refused("it is compressed with bzip2", resolution="use gzip, zstd, xz or no compression")
            case _:
                while first:
                    yield first
                    first = file.read(CHUNK_BYTES)
    except (zlib.error, lzma.LZMAError, zstandard.ZstdError) as error:
        raise refused(f"its compression is damaged: {error}") from error


def _gunzip(data: bytes, file: _Counted) -> Iterator[bytes]:
    """Inflate one gzip member after another (RFC 1952); zeros after the last one are padding."""
    while True:
        member = zlib.decompressobj(wbits=31)
        while not member.eof:
            if not data and not (data := file.read()):
                raise _cut_off()
            piece = member.decompress(data, CHUNK_BYTES)
            data = member.unconsumed_tail
            if piece:
                yield piece
        data = member.unused_data or file.read()
        while data and not data.strip(b"\0"):
            data = file.read()
        if not data:
            return
        data = data.lstrip(b"\0")
        if not data.startswith(GZIP[: len(data)]):
            raise refused("something that is not gzip follows its compressed data")


def _unxz(data: bytes, file: _Counted) -> Iterator[bytes]:
    while True:
        stream = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=XZ_MEMORY_BYTES)
        while not stream.eof:
            if stream.needs_input and not data and not (data := file.read()):
                raise _cut_off()
            piece = stream.decompress(data, CHUNK_BYTES)
            data = b""
            if piece:
                yield piece
        data = stream.unused_data or file.read()
        while data and not data.strip(b"\0"):
            data = file.read()
        if not data:
            return
        data = data.lstrip(b"\0")


def _unzstd(data: bytes, file: _Counted) -> Iterator[bytes]:
    """Inflate frame after frame. One that is cut off is not told from a whole one here: tar's end marker tells."""
    decompressor = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW_BYTES)
    with decompressor.stream_reader(cast("IO[bytes]", _Preceded(data, file)), read_across_frames=True) as reader:
        while piece := reader.read(CHUNK_BYTES):
            yield piece


class _Preceded(io.RawIOBase):
    """A file, preceded by bytes that were read of it already."""

    def __init__(self, data: bytes, file: _Counted) -> None:
        self._data = data
        self._file = file

    def read(self, size: int = -1) -> bytes:
        if size < 0 or not self._data:
            return self._data or self._file.read(size if size > 0 else CHUNK_BYTES)
        piece, self._data = self._data[:size], self._data[size:]
        return piece


def _cut_off() -> ImageRefused:
    return refused("its compressed data ends too early")
