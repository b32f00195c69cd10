"""Reads tar archives (POSIX.1-2008 pax, ustar, GNU) front to back, strictly, in bounded memory; decides nothing.

The standard library's reader takes what it cannot read for the end of the archive and holds headers of any size.
Formats: POSIX.1-2008 pax(1) "ustar Interchange Format" and "pax Header Block"; GNU tar manual, "Basic Tar Format" and
"Storing Sparse Files". Global pax headers are passed over: they tell of the archive, not of its files.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from hearth.image.layers.refused import ImageRefused, refused, shown

BLOCK = 512
MAX_HEADER_BYTES = 1024 * 1024
"""Of one extended header: names, times, attributes of one file."""
MAX_EXTENDED = 8
"""Extended headers of one file; there are three kinds."""
MAX_RANGES = 65_536
"""Of data in one sparse file."""
XATTR_PREFIX = b"SCHILY.xattr."
MAX_ID = 2**32 - 2
DECIMAL = re.compile(rb"-?[0-9]{1,20}(\.[0-9]*)?")


class Kind(Enum):
    """What an entry is."""

    FILE = b"0"
    LINK = b"1"
    SYMLINK = b"2"
    CHARACTER = b"3"
    BLOCK = b"4"
    DIRECTORY = b"5"
    FIFO = b"6"


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One file as its header tells of it. Names are bytes, as on disk; times in nanoseconds.

    ``size`` is what the file has, ``stored`` what the archive holds of it: where both differ it is sparse, and
    ``ranges`` are the (offset, length) of its data. ``number`` counts the archive's entries from 0.
    """

    number: int
    name: bytes
    kind: Kind
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    size: int = 0
    stored: int = 0
    ranges: tuple[tuple[int, int], ...] | None = None
    target: bytes = b""
    device: tuple[int, int] = (0, 0)
    xattrs: Mapping[bytes, bytes] = field(default_factory=dict)


class Bytes(Protocol):
    """Where an archive comes from: see ``hearth.image.layers.streams``."""

    position: int

    def read(self, size: int, /) -> bytes: ...

    def pieces(self, size: int, /) -> Iterator[memoryview]: ...

    def skip(self, size: int, /) -> None: ...


class TarReader:
    """Gives the entries of an archive. The data of a file may be read once, before the next entry is asked for.

    Args:
        needs_end: an archive without its end marker counts as cut off.
    """

    def __init__(self, source: Bytes, *, needs_end: bool) -> None:
        self._source = source
        self._needs_end = needs_end
        self._unread = 0
        self._padding = 0
        self._number = -1

    def __iter__(self) -> Iterator[Entry]:
        while (header := self._next_header()) is not None:
            yield self._entry(header)

    def data(self) -> Iterator[memoryview]:
        """Give the stored bytes of the entry given last."""
        for piece in self._source.pieces(self._unread):
            self._unread -= len(piece)
            yield piece

    def _next_header(self) -> _Header | None:
        extended: dict[bytes, bytes] = {}
        sparse: list[tuple[bytes, bytes]] = []
        for _ in range(MAX_EXTENDED):
            self._source.skip(self._unread + self._padding)
            self._unread = self._padding = 0
            block = self._source.read(BLOCK)
            if len(block) < BLOCK or not block.strip(b"\0"):
                self._end(block, bool(extended))
                return None
            header = _Header(block, extended, sparse)
            if header.type not in b"xLKg":
                if b"size" in extended and header.type not in b"23456":
                    header.stored = _whole(extended[b"size"], "size")
                self._unread, self._padding = header.stored, -header.stored % BLOCK
                return header
            data = self._extended(header)
            self._padding = -header.stored % BLOCK
            if header.type == b"x":
                for key, value in _records(data):
                    extended[key] = value
                    if key in (b"GNU.sparse.offset", b"GNU.sparse.numbytes"):
                        sparse.append((key, value))
            elif header.type in b"LK":
                extended[b"path" if header.type == b"L" else b"linkpath"] = data.split(b"\0", 1)[0]
        raise refused(f"more than {MAX_EXTENDED} extended headers for one file")

    def _end(self, block: bytes, has_extended: bool) -> None:
        if has_extended or (block and len(block) < BLOCK) or (not block and self._needs_end):
            raise refused("the archive is cut off")

    def _extended(self, header: _Header) -> bytes:
        if header.stored > MAX_HEADER_BYTES:
            raise refused(f"an extended header of {header.stored} bytes, {MAX_HEADER_BYTES} may be")
        data = self._source.read(header.stored)
        if len(data) < header.stored:
            raise refused("the archive is cut off")
        return data

    def _entry(self, header: _Header) -> Entry:
        self._number += 1
        extended = header.extended
        name = extended.get(b"path", header.name)
        kind = _kind(header.type, name)
        size, ranges = header.stored, None
        if kind is Kind.FILE:
            ranges = self._ranges(header)
            if ranges is not None:
                name = extended.get(b"GNU.sparse.name", name)
                size = self._sparse_size(header)
                _check_ranges(ranges, size, self._unread, name)
        if b"\0" in name:
            raise refused(f"a name holds a NUL: {shown(name)}")
        return Entry(
            number=self._number,
            name=name,
            kind=kind,
            mode=header.number(100, 8) & 0o7777,
            uid=_id(extended.get(b"uid"), header, 108),
            gid=_id(extended.get(b"gid"), header, 116),
            mtime_ns=_time(extended.get(b"mtime"), header),
            size=size if kind is Kind.FILE else 0,
            stored=self._unread if kind is Kind.FILE else 0,
            ranges=ranges,
            target=extended.get(b"linkpath", header.target) if kind in (Kind.LINK, Kind.SYMLINK) else b"",
            device=(header.number(329, 8), header.number(337, 8)) if kind in (Kind.CHARACTER, Kind.BLOCK) else (0, 0),
            xattrs={
                key.removeprefix(XATTR_PREFIX): value for key, value in extended.items() if key.startswith(XATTR_PREFIX)
            },
        )

    def _ranges(self, header: _Header) -> tuple[tuple[int, int], ...] | None:
        """Read where a sparse file's data belongs, in any of the four ways there are to say so."""
        extended = header.extended
        if header.type == b"S":
            return self._old_gnu_ranges(header)
        if extended.get(b"GNU.sparse.major") == b"1":
            return self._leading_ranges()
        if (text := extended.get(b"GNU.sparse.map")) is not None:
            numbers = [_whole(each, "sparse map") for each in text.split(b",")] if text else []
            return _pairs(numbers)
        if header.sparse:
            return _pairs([_whole(value, "sparse map") for _, value in header.sparse])
        return None

    def _old_gnu_ranges(self, header: _Header) -> tuple[tuple[int, int], ...]:
        numbers = _table(header.block, 386, 4)
        more = header.block[482]
        while more:
            block = self._source.read(BLOCK)
            if len(block) < BLOCK or len(numbers) > 2 * MAX_RANGES:
                raise refused("a sparse file's map is cut off or too long")
            numbers += _table(block, 0, 21)
            more = block[504]
        return _pairs(numbers)

    def _leading_ranges(self) -> tuple[tuple[int, int], ...]:
        """Read a map that comes before the data: decimal numbers, a line each, filled up to a whole block."""
        text, wanted = b"", 1
        while text.count(b"\n") < wanted:
            block = self._source.read(BLOCK)
            self._unread -= BLOCK
            if len(block) < BLOCK or self._unread < 0 or len(text) > MAX_HEADER_BYTES:
                raise refused("a sparse file's map is cut off or too long")
            text += block
            if b"\n" in text:
                wanted = 1 + 2 * min(_whole(text.split(b"\n", 1)[0], "sparse map"), MAX_RANGES + 1)
        return _pairs([_whole(line, "sparse map") for line in text.split(b"\n")[1:wanted]])

    def _sparse_size(self, header: _Header) -> int:
        for key in (b"GNU.sparse.realsize", b"GNU.sparse.size"):
            if (value := header.extended.get(key)) is not None:
                return _whole(value, "sparse size")
        return header.number(483, 12)


class _Header:
    """One block that is a header; its own fields, and what extended headers before it said."""

    def __init__(self, block: bytes, extended: dict[bytes, bytes], sparse: list[tuple[bytes, bytes]]) -> None:
        self.block = block
        self.extended = extended
        self.sparse = sparse
        told = self.number(148, 8)
        unsigned = sum(block[:148]) + sum(block[156:]) + 8 * 32
        if told not in (unsigned, unsigned - 256 * sum(byte > 127 for byte in block[:148] + block[156:])):
            raise refused("a header's checksum is wrong: this is no tar archive, or it is damaged")
        self.type = block[156:157]
        self.stored = self.number(124, 12)
        if self.stored < 0:
            raise refused("a file has a negative size")
        if self.type in b"123456":
            # What has no data has none, whatever size it states (POSIX); of a pax link it may follow.
            self.stored = self.stored if self.type == b"1" and b"size" in extended else 0

    @property
    def name(self) -> bytes:
        name = _text(self.block, 0, 100)
        is_ustar = self.block[257:263] == b"ustar\0"
        prefix = _text(self.block, 345, 155) if is_ustar else b""
        return prefix + b"/" + name if prefix else name

    @property
    def target(self) -> bytes:
        return _text(self.block, 157, 100)

    def number(self, start: int, size: int) -> int:
        return _number(self.block[start : start + size])


def _text(block: bytes, start: int, size: int) -> bytes:
    return block[start : start + size].split(b"\0", 1)[0]


def _number(data: bytes) -> int:
    """Read a number: octal digits, or binary where the first bit is set (GNU, star)."""
    if data[0] & 0x80:
        return int.from_bytes(data, "big", signed=True) if data[0] == 0xFF else _positive(data)
    text = data.strip(b" \0")
    if not text:
        return 0
    if re.fullmatch(rb"[0-7]+", text.split(b"\0", 1)[0].strip()) is None:
        raise refused(f"a number in a header is none: {shown(data)}")
    return int(text.split(b"\0", 1)[0].strip(), 8)


def _positive(data: bytes) -> int:
    return int.from_bytes(bytes([data[0] & 0x7F]) + data[1:], "big")


def _whole(text: bytes, what: str) -> int:
    if re.fullmatch(rb"[0-9]{1,19}", text) is None:
        raise refused(f"the {what} in an extended header is no number: {shown(text)}")
    return int(text)


def _id(text: bytes | None, header: _Header, start: int) -> int:
    value = header.number(start, 8) if text is None else _whole(text, "owner")
    if not 0 <= value <= MAX_ID:
        raise refused(f"a file's owner has the number {value}")
    return value


def _time(text: bytes | None, header: _Header) -> int:
    if text is None:
        return header.number(136, 12) * 10**9
    if DECIMAL.fullmatch(text) is None:
        raise refused(f"a time in an extended header is none: {shown(text)}")
    seconds, _, fraction = text.partition(b".")
    return int(seconds) * 10**9 + int((fraction + b"0" * 9)[:9])


def _kind(type_: bytes, name: bytes) -> Kind:
    if type_ in (b"\0", b"0", b"7", b"S"):
        return Kind.DIRECTORY if name.endswith(b"/") and type_ != b"S" else Kind.FILE
    try:
        return Kind(type_)
    except ValueError as error:
        raise refused(f"{shown(name)} is of a kind that no file has: {shown(type_)}") from error


def _records(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Take an extended header apart: ``LENGTH KEY=VALUE`` and a newline, where LENGTH counts all of it."""
    while data:
        digits, blank, _ = data[:20].partition(b" ")
        if not blank or re.fullmatch(rb"[0-9]{1,9}", digits) is None:
            raise _bad_record()
        length = int(digits)
        record = data[len(digits) + 1 : length]
        key, equals, value = record.partition(b"=")
        if length > len(data) or not equals or not key or not value.endswith(b"\n"):
            raise _bad_record()
        yield key, value[:-1]
        data = data[length:]


def _bad_record() -> ImageRefused:
    return refused("an extended header is damaged")


def _table(block: bytes, start: int, count: int) -> list[int]:
    numbers = []
    for number in range(count):
        at = start + 24 * number
        if not block[at : at + 24].strip(b"\0"):
            break
        numbers += [_number(block[at : at + 12]), _number(block[at + 12 : at + 24])]
    return numbers


def _pairs(numbers: list[int]) -> tuple[tuple[int, int], ...]:
    if len(numbers) % 2 or len(numbers) > 2 * MAX_RANGES:
        raise refused("a sparse file's map is damaged or too long")
    return tuple(zip(numbers[::2], numbers[1::2], strict=True))


def _check_ranges(ranges: tuple[tuple[int, int], ...], size: int, stored: int, name: bytes) -> None:
    end = 0
    for offset, length in ranges:
        if offset < end or length < 0 or offset + length > size:
            raise refused(f"the map of the sparse file {shown(name)} is damaged")
        end = offset + length
    if sum(length for _, length in ranges) != stored:
        raise refused(f"the map of the sparse file {shown(name)} tells of another amount of data than there is")
