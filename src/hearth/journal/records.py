"""The bytes of a command's log: a head, then records that each say what they are, where they stand and that they are
whole.

A segment is one file::

    head    8 bytes  "HEARTHX" and the version, 1
            u64      position of its first byte of output
    record  u32      CRC-32 (zlib.crc32) of all that follows
            u32      bytes of output in it
            u8       stream: 1 stdout, 2 stderr
            u64      position of the first of them
            …        the output

Numbers are big-endian. Positions count the bytes of both outputs together, as they came, from 0 on: they are the
cursors of the API. Where a record begins behind the end of the one before, the output between is lost: that is a gap.
A record that is cut short or does not match its checksum is a torn tail; nothing behind it counts.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable
from typing import Final, Literal, NamedTuple

Stream = Literal["stdout", "stderr"]

MAGIC: Final = b"HEARTHX\x01"
HEAD = struct.Struct(">8sQ")
MAX_DATA_BYTES = 1024 * 1024
"""In one record; a longer piece is written as several."""

_CRC = struct.Struct(">I")
_REST = struct.Struct(">IBQ")
RECORD_BYTES = _CRC.size + _REST.size
"""What a record takes besides its output."""
_KINDS: dict[Stream, int] = {"stdout": 1, "stderr": 2}
_STREAMS: dict[int, Stream] = {kind: stream for stream, kind in _KINDS.items()}


class Piece(NamedTuple):
    """Some output of one stream; ``position`` is that of its first byte."""

    stream: Stream
    position: int
    data: bytes

    @property
    def end(self) -> int:
        return self.position + len(self.data)

    def since(self, position: int) -> Piece:
        """Give the part from ``position`` on, where that lies inside."""
        if position <= self.position:
            return self
        return Piece(self.stream, position, self.data[position - self.position :])


def encode_head(position: int) -> bytes:
    """Give the head of a segment."""
    return HEAD.pack(MAGIC, position)


def decode_head(data: bytes) -> int | None:
    """Give the position of a segment's first byte; None when this is the head of none."""
    if len(data) < HEAD.size:
        return None
    magic, position = HEAD.unpack_from(data)
    return int(position) if magic == MAGIC else None


def encode_records(pieces: Iterable[Piece]) -> bytes:
    """Give the records of pieces, in one block."""
    blocks = []
    for piece in pieces:
        for start in range(0, len(piece.data), MAX_DATA_BYTES):
            data = piece.data[start : start + MAX_DATA_BYTES]
            rest = _REST.pack(len(data), _KINDS[piece.stream], piece.position + start)
            blocks += [_CRC.pack(zlib.crc32(data, zlib.crc32(rest))), rest, data]
    return b"".join(blocks)


def decode_records(data: bytes) -> tuple[list[Piece], int]:
    """Give the whole records at the beginning of ``data``, and how many bytes they take; what follows is none (yet).

    The pieces are in the order of their positions and do not overlap.
    """
    pieces: list[Piece] = []
    offset = position = 0
    while len(data) - offset >= RECORD_BYTES:
        size, kind, start = _REST.unpack_from(data, offset + _CRC.size)
        end = offset + RECORD_BYTES + size
        if not 0 < size <= MAX_DATA_BYTES or end > len(data) or kind not in _STREAMS or start < position:
            break
        if _CRC.unpack_from(data, offset)[0] != zlib.crc32(memoryview(data)[offset + _CRC.size : end]):
            break
        pieces.append(Piece(_STREAMS[kind], start, data[offset + RECORD_BYTES : end]))
        offset, position = end, start + size
    return pieces, offset
