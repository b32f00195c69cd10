"""Bytes ↔ frames, without I/O: the framing of every connection between host and agent (design: wire protocol).

A frame is ``u32 L (big-endian) = 1 + len(payload)``, ``u8 type``, payload. ``L == 0`` and ``L > MAX_LENGTH`` are
protocol errors for the writer as for the reader.

    WireError
    ├── ProtocolError      the peer (or the caller) broke the framing
    │   ├── EmptyFrame       L == 0
    │   └── OversizedFrame   L > MAX_LENGTH
    └── TruncatedStream    the stream ended inside a header or payload
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from enum import IntEnum

from hearth.wire.runtime_typing import NamedTuple

MAX_LENGTH = 1_048_576
"""Largest ``L``: one type byte and the payload, in bytes."""
MAX_PAYLOAD = MAX_LENGTH - 1
HEADER_SIZE = 5

_HEADER = struct.Struct(">IB")
_EXIT = struct.Struct(">i")
_RESIZE = struct.Struct(">HH")
_U64 = struct.Struct(">Q")
_MAX_SIGNAL = 64
_MAX_TIME_NS = 2**63 - 1
_MAX_ENTROPY = 512


class FrameType(IntEnum):
    """The type byte; the number is the wire's."""

    STDIN = 0x01
    STDOUT = 0x02
    STDERR = 0x03
    RESIZE = 0x04
    EXIT = 0x05
    ERROR = 0x06
    KILL = 0x07
    EXEC_REQ = 0x10
    AUTH = 0x11
    CONFIGURE = 0x12
    CONFIGURED = 0x13
    FWD_REQ = 0x20
    FWD_RESP = 0x21
    EXEC_LIST_REQ = 0x30
    EXEC_LIST_RESP = 0x31
    EXEC_KILL = 0x32
    SESSION_INFO = 0x33
    ACTIVITY_REQ = 0x40
    ACTIVITY_RESP = 0x41
    FILE_READ_REQ = 0x50
    FILE_READ_RESP = 0x51
    FILE_WRITE_REQ = 0x52
    FILE_WRITE_RESP = 0x53
    FILE_STAT_REQ = 0x54
    FILE_STAT_RESP = 0x55
    FILE_LS_REQ = 0x56
    FILE_LS_RESP = 0x57
    STDIN_EOF = 0x60
    SIGNAL = 0x61
    FILE_MKDIR_REQ = 0x62
    FILE_MKDIR_RESP = 0x63
    FILE_REMOVE_REQ = 0x64
    FILE_REMOVE_RESP = 0x65
    FILE_MOVE_REQ = 0x66
    FILE_MOVE_RESP = 0x67
    FILE_CHMOD_REQ = 0x68
    FILE_CHMOD_RESP = 0x69
    TAR_READ_REQ = 0x6A
    TAR_READ_RESP = 0x6B
    TAR_WRITE_REQ = 0x6C
    TAR_WRITE_RESP = 0x6D
    WATCH_REQ = 0x6E
    WATCH_RESP = 0x6F
    WATCH_EVENT = 0x70
    PROBE = 0x71
    PORTS_REQ = 0x72
    PORTS_RESP = 0x73
    FILE_READ_RANGE_REQ = 0x74
    FILE_READ_RANGE_RESP = 0x75
    POWER_OFF_REQ = 0x76
    POWER_OFF_RESP = 0x77
    FREEZE_REQ = 0x78
    FREEZE_RESP = 0x79
    THAW_REQ = 0x7A
    THAW_RESP = 0x7B
    TIME_SYNC = 0x7C
    LAST_WORDS_REQ = 0x80
    LAST_WORDS_RESP = 0x81
    VOLUMES_REQ = 0x82
    VOLUMES_RESP = 0x83
    EXEC_KEPT = 0x85
    OUTPUT_ACK = 0x86
    RELEASE = 0x88


class WireError(Exception):
    """Root of all errors of the wire."""


class ProtocolError(WireError):
    """The framing or a message was broken; the connection cannot go on."""


class EmptyFrame(ProtocolError):
    """A frame announced length 0: not even a type byte."""


class OversizedFrame(ProtocolError):
    """A frame announced or was given more than ``MAX_LENGTH``."""


class TruncatedStream(WireError):
    """The stream ended inside a frame; between frames an end is clean."""


class Frame(NamedTuple):
    """One frame. ``type`` is a plain int, as unknown types must pass through."""

    type: int
    payload: bytes


class Parsed(NamedTuple):
    """What ``try_parse`` found: a frame and how many bytes of the buffer it took."""

    type: int
    payload: bytes
    consumed: int


class TimeSync(NamedTuple):
    """What TIME_SYNC says: the time in unix nanoseconds, and random bytes, which may be none."""

    unix_time_ns: int
    entropy: bytes


def encode_header(frame_type: int, payload_size: int) -> bytes:
    """Give the 5 header bytes for a payload of ``payload_size`` bytes (for ``sendmsg`` without a copy).

    Raises:
        OversizedFrame: the payload is larger than ``MAX_PAYLOAD``.
        ProtocolError: ``frame_type`` is not a byte.
    """
    if payload_size > MAX_PAYLOAD:
        raise OversizedFrame(f"payload of {payload_size} bytes exceeds {MAX_PAYLOAD}")
    return _pack(_HEADER, payload_size + 1, frame_type)


def encode(frame_type: int, payload: bytes | bytearray | memoryview = b"") -> bytes:
    """Give one whole frame, to be written in one piece.

    Raises:
        OversizedFrame: the payload is larger than ``MAX_PAYLOAD``.
        ProtocolError: ``frame_type`` is not a byte.
    """
    size = len(payload) if type(payload) is bytes else memoryview(payload).nbytes
    if size > MAX_PAYLOAD or not 0 <= frame_type <= 0xFF:
        return encode_header(frame_type, size)  # which raises
    return _HEADER.pack(size + 1, frame_type) + payload


def encode_exit(code: int) -> bytes:
    """Give an EXIT frame; ``code`` is an i32.

    Raises:
        ProtocolError: it is not.
    """
    return encode(FrameType.EXIT, _pack(_EXIT, code))


def encode_resize(rows: int, columns: int) -> bytes:
    """Give a RESIZE frame; both are u16.

    Raises:
        ProtocolError: one is not.
    """
    return encode(FrameType.RESIZE, _pack(_RESIZE, rows, columns))


def encode_signal(number: int) -> bytes:
    """Give a SIGNAL frame; ``number`` is a u8, 1 to 64 as Linux counts its signals.

    Raises:
        ProtocolError: no such signal.
    """
    if not 1 <= number <= _MAX_SIGNAL:
        raise ProtocolError(f"signal {number} is outside 1..{_MAX_SIGNAL}")
    return encode(FrameType.SIGNAL, bytes((number,)))


def encode_time_sync(unix_time_ns: int, entropy: bytes = b"") -> bytes:
    """Give a TIME_SYNC frame; the time is a u64 below 2**63, ``entropy`` at most 512 bytes.

    Raises:
        ProtocolError: one of them is not.
    """
    payload = _pack(_U64, unix_time_ns) + entropy
    parse_time_sync(payload)
    return encode(FrameType.TIME_SYNC, payload)


def encode_ack(position: int) -> bytes:
    """Give an OUTPUT_ACK frame; raises ProtocolError unless ``position`` is a u64."""
    return encode(FrameType.OUTPUT_ACK, _pack(_U64, position))


def encode_error(message: str) -> bytes:
    """Give an ERROR frame; a text too long for a frame is cut at a character."""
    data = message.encode("utf-8", "replace")
    if len(data) > MAX_PAYLOAD:
        data = data[:MAX_PAYLOAD].decode("utf-8", "ignore").encode()
    return encode(FrameType.ERROR, data)


def parse_exit(payload: bytes) -> int:
    """Read an EXIT payload.

    Raises:
        ProtocolError: it is not 4 bytes.
    """
    if len(payload) != _EXIT.size:
        raise ProtocolError(f"EXIT payload has {len(payload)} bytes, not {_EXIT.size}")
    code: int = _EXIT.unpack(payload)[0]
    return code


def parse_resize(payload: bytes) -> tuple[int, int]:
    """Read a RESIZE payload as (rows, columns).

    Raises:
        ProtocolError: it is not 4 bytes.
    """
    if len(payload) != _RESIZE.size:
        raise ProtocolError(f"RESIZE payload has {len(payload)} bytes, not {_RESIZE.size}")
    rows, columns = _RESIZE.unpack(payload)
    return rows, columns


def parse_signal(payload: bytes) -> int:
    """Read a SIGNAL payload as a signal number from 1 to 64.

    Raises:
        ProtocolError: it is not 1 byte, or no such signal.
    """
    if len(payload) != 1:
        raise ProtocolError(f"SIGNAL payload has {len(payload)} bytes, not 1")
    number = payload[0]
    if not 1 <= number <= _MAX_SIGNAL:
        raise ProtocolError(f"signal {number} is outside 1..{_MAX_SIGNAL}")
    return number


def parse_time_sync(payload: bytes) -> TimeSync:
    """Read a TIME_SYNC payload.

    Raises:
        ProtocolError: it has no 8 bytes of time, the time is out of range, or there is too much entropy.
    """
    if not _U64.size <= len(payload) <= _U64.size + _MAX_ENTROPY:
        raise ProtocolError(f"TIME_SYNC payload has {len(payload)} bytes, not 8 to {_U64.size + _MAX_ENTROPY}")
    unix_time_ns: int = _U64.unpack_from(payload)[0]
    if unix_time_ns > _MAX_TIME_NS:
        raise ProtocolError(f"TIME_SYNC says {unix_time_ns} ns, the most is {_MAX_TIME_NS}")
    return TimeSync(unix_time_ns, payload[_U64.size :])


def parse_ack(payload: bytes) -> int:
    """Read an OUTPUT_ACK payload; raises ProtocolError unless it is 8 bytes."""
    if len(payload) != _U64.size:
        raise ProtocolError(f"OUTPUT_ACK payload has {len(payload)} bytes, not {_U64.size}")
    position: int = _U64.unpack(payload)[0]
    return position


def check_length(length: int) -> int:
    """Return ``length`` (the header's L) when it may stand on the wire.

    Raises:
        EmptyFrame, OversizedFrame: it may not.
    """
    if length == 0:
        raise EmptyFrame("frame length 0")
    if length > MAX_LENGTH:
        raise OversizedFrame(f"frame length {length} exceeds {MAX_LENGTH}")
    return length


def try_parse(buffer: bytes | bytearray | memoryview, offset: int = 0) -> Parsed | None:
    """Read the frame that starts at ``offset``, or None when more bytes are needed. Reads the header, never scans.

    Raises:
        EmptyFrame, OversizedFrame: as soon as the four length bytes are there.
    """
    found = _parse(buffer, offset)
    return None if found is None else Parsed._make(found)


def _parse(buffer: bytes | bytearray | memoryview, offset: int) -> tuple[int, bytes, int] | None:
    size = len(buffer)
    start = offset + HEADER_SIZE
    if size < start:
        if size >= offset + 4:
            check_length(int.from_bytes(buffer[offset : offset + 4], "big"))
        return None
    length, frame_type = _HEADER.unpack_from(buffer, offset)
    if not 0 < length <= MAX_LENGTH:
        check_length(length)
    end = start + length - 1
    if size < end:
        return None
    payload = buffer[start:end] if type(buffer) is bytes else bytes(memoryview(buffer)[start:end])
    return frame_type, payload, end - offset


class Decoder:
    """Collects bytes as they come and gives whole frames; memory is bounded by one frame and one chunk.

    A chunk of ``bytes`` that begins at a frame is not copied until its frames are.
    """

    def __init__(self) -> None:
        self._buffer: bytes | bytearray = b""
        self._offset = 0

    @property
    def pending(self) -> int:
        """Bytes held that do not yet make a frame."""
        return len(self._buffer) - self._offset

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Add bytes from the stream."""
        if self._offset == len(self._buffer):
            self._buffer = data if type(data) is bytes else bytearray(data)
        elif type(self._buffer) is bytearray:
            if self._offset:
                del self._buffer[: self._offset]
            self._buffer += data
        else:
            self._buffer = bytearray(memoryview(self._buffer)[self._offset :])
            self._buffer += data
        self._offset = 0

    def next(self) -> Frame | None:
        """Take the next whole frame, or None when more bytes are needed.

        Raises:
            ProtocolError: the stream is broken; it stays broken.
        """
        found = _parse(self._buffer, self._offset)
        if found is None:
            return None
        self._offset += found[2]
        return Frame._make(found[:2])

    def frames(self) -> Iterator[Frame]:
        """Take all whole frames held now."""
        while (frame := self.next()) is not None:
            yield frame

    def take_rest(self) -> bytes:
        """Take what is left undecoded: the raw bytes behind the last frame of a forward connection."""
        rest = self._buffer[self._offset :] if type(self._buffer) is bytes else bytes(self._buffer[self._offset :])
        self._buffer = b""
        self._offset = 0
        return rest

    def eof(self) -> None:
        """Tell that the stream ended.

        Raises:
            TruncatedStream: it ended inside a frame.
        """
        if self.pending:
            raise TruncatedStream(f"stream ended inside a frame, {self.pending} bytes in")


def _pack(layout: struct.Struct, *values: int) -> bytes:
    try:
        return layout.pack(*values)
    except struct.error as error:
        raise ProtocolError(f"{values} cannot stand on the wire: {error}") from error
