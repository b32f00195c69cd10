"""Just enough of ELF to ask a file for a section, its loader or its libraries (System V gABI, chapters 4, 5)."""

from __future__ import annotations

import struct

MAGIC = b"\x7fELF"
CLASS_64 = 2
LITTLE_ENDIAN = 1
TYPE_INTERPRETER = 3
TAG_NEEDED = 1
HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
PROGRAM_HEADER = struct.Struct("<IIQQQQQQ")
DYNAMIC_ENTRY = struct.Struct("<qQ")
SECTION_HEADER = struct.Struct("<IIQQQQIIQQ")


class BadElf(ValueError):
    """The bytes are not a 64-bit little-endian ELF file, or are cut short."""


def section(data: bytes, name: str) -> bytes | None:
    """Give the bytes of the section called ``name``, or None when there is none.

    Raises:
        BadElf: the file is not what it should be.
    """
    (*_, offset, _, _, _, _, entry_size, count, names_index) = read_header(data)
    headers = [unpack(SECTION_HEADER, data, offset + index * entry_size) for index in range(count)]
    if names_index >= len(headers):
        return None
    names = span(data, headers[names_index][4], headers[names_index][5])
    for header in headers:
        if names[header[0] :].split(b"\0", 1)[0] == name.encode():
            return span(data, header[4], header[5])
    return None


def interpreter(data: bytes) -> str | None:
    """Give the path of the dynamic loader a program asks for; None for a static one.

    Raises:
        BadElf: the file is not what it should be.
    """
    (_, _, _, _, _, offset, _, _, _, entry_size, count, *_) = read_header(data)
    for index in range(count):
        kind, _, at, _, _, size, _, _ = unpack(PROGRAM_HEADER, data, offset + index * entry_size)
        if kind == TYPE_INTERPRETER:
            return span(data, at, size).rstrip(b"\0").decode()
    return None


def needed(data: bytes) -> list[str]:
    """Give the names of the shared libraries a program or library asks for itself.

    Raises:
        BadElf: the file is not what it should be.
    """
    dynamic, names = section(data, ".dynamic") or b"", section(data, ".dynstr") or b""
    whole = len(dynamic) - len(dynamic) % DYNAMIC_ENTRY.size
    offsets = [value for tag, value in DYNAMIC_ENTRY.iter_unpack(dynamic[:whole]) if tag == TAG_NEEDED]
    return [names[offset:].split(b"\0", 1)[0].decode() for offset in offsets]


def read_header(data: bytes) -> tuple[int, ...]:
    """Check the identification and give the file header's fields."""
    fields = unpack(HEADER, data, 0)
    if data[:4] != MAGIC or data[4] != CLASS_64 or data[5] != LITTLE_ENDIAN:
        raise BadElf("not a 64-bit little-endian ELF file")
    return fields


def unpack(layout: struct.Struct, data: bytes, offset: int) -> tuple[int, ...]:
    """Read one structure, refusing to read beyond the end."""
    if offset + layout.size > len(data):
        raise BadElf("cut short")
    return layout.unpack_from(data, offset)


def span(data: bytes, offset: int, size: int) -> bytes:
    """Give ``size`` bytes from ``offset``, refusing to read beyond the end."""
    if offset + size > len(data):
        raise BadElf("cut short")
    return data[offset : offset + size]
