"""Partition tables read from the bytes of a disk, strictly: what strangers wrote there is believed in nothing. Pure.

Layouts: UEFI specification 2.10, chapter 5 (GPT, protective MBR); the MBR of PCs, of which it is a part.
"""

from __future__ import annotations

import struct
import uuid
import zlib
from dataclasses import dataclass

HEAD_BYTES = 1 << 20
"""What of a disk's start holds its table: partitions begin behind the first MiB on nearly all disks."""
SECTORS = (512, 4096)
SIGNATURE = b"EFI PART"
REVISION = 0x00010000
HEADER = struct.Struct("<8sIIIIQQQQ16sQIII")
ENTRY = struct.Struct("<16s16sQQQ72s")
HEADER_MAX_BYTES = 512
ENTRY_COUNT_MAX = 1024
MBR_AT, MBR_ENTRY = 446, struct.Struct("<B3sB3sII")
MBR_MAGIC = b"\x55\xaa"
PROTECTIVE = 0xEE
EXTENDED = frozenset({0x05, 0x0F, 0x85})
EMPTY_GUID = bytes(16)


class TableRefused(ValueError):
    """The text says what is wrong with the table."""


@dataclass(frozen=True, kw_only=True)
class Partition:
    """A part of a disk; ``kind`` is its type: a GUID in lower case, or two hexadecimal digits. Offset and size in
    bytes."""

    number: int
    offset_bytes: int
    size_bytes: int
    kind: str
    name: str = ""


@dataclass(frozen=True, kw_only=True)
class Gpt:
    """What a GUID partition table's header tells, in sectors of ``sector_bytes``; ``raw`` is the header as it is."""

    sector_bytes: int
    backup_lba: int
    first_usable: int
    last_usable: int
    entries_lba: int
    entry_count: int
    entry_bytes: int
    raw: bytes
    entries: bytes

    @property
    def table_sectors(self) -> int:
        """How many sectors the entries take."""
        return -(-len(self.entries) // self.sector_bytes)


@dataclass(frozen=True, kw_only=True)
class Table:
    """The partitions of a disk, by number; ``gpt`` is None where the table is an MBR."""

    partitions: tuple[Partition, ...]
    gpt: Gpt | None = None

    def partition(self, number: int) -> Partition:
        """Give one of them.

        Raises:
            TableRefused: there is none of that number.
        """
        for each in self.partitions:
            if each.number == number:
                return each
        known = ", ".join(str(each.number) for each in self.partitions) or "none"
        raise TableRefused(f"it has no partition {number}; there are: {known}")


def read_table(head: bytes, disk_bytes: int) -> Table | None:
    """Read the partition table at the start of a disk; None where there is none.

    Args:
        head: the disk's first ``HEAD_BYTES``, or all of it.
        disk_bytes: the disk's size.

    Raises:
        TableRefused: there is one that cannot be believed.
    """
    for sector_bytes in SECTORS:
        if head[sector_bytes : sector_bytes + len(SIGNATURE)] == SIGNATURE:
            return _read_gpt(head, disk_bytes, sector_bytes)
    return _read_mbr(head, disk_bytes)


def read_gpt_header(raw: bytes, *, at_lba: int) -> tuple[bytes, tuple[int, ...]]:
    """Check a header by itself; gives it without what follows, and its fields.

    Returns:
        The header's bytes, and backup LBA, first and last usable LBA, entries' LBA, their number, size and CRC.

    Raises:
        TableRefused: it is none, or damaged.
    """
    if len(raw) < HEADER.size:
        raise TableRefused("its GUID partition table is cut off")
    found = HEADER.unpack_from(raw)
    signature, revision, header_bytes, crc, _, own_lba, backup, first, last, _, entries, count, size, entries_crc = (
        found
    )
    if signature != SIGNATURE or revision != REVISION:
        raise TableRefused("its GUID partition table is of an unknown revision")
    if not HEADER.size <= header_bytes <= min(HEADER_MAX_BYTES, len(raw)):
        raise TableRefused(f"its GUID partition table has a header of {header_bytes} bytes")
    header = raw[:header_bytes]
    if crc32(header[:16] + bytes(4) + header[20:]) != crc:
        raise TableRefused("the checksum of its GUID partition table is wrong")
    if own_lba != at_lba:
        raise TableRefused(f"its GUID partition table lies at sector {at_lba} and says {own_lba}")
    if size < ENTRY.size or size & (size - 1) or size > 4096 or not 0 < count <= ENTRY_COUNT_MAX:
        raise TableRefused(f"its GUID partition table has {count} entries of {size} bytes")
    return header, (backup, first, last, entries, count, size, entries_crc)


def _read_gpt(head: bytes, disk_bytes: int, sector_bytes: int) -> Table:
    header, fields = read_gpt_header(head[sector_bytes : sector_bytes + HEADER_MAX_BYTES], at_lba=1)
    backup, first, last, entries_lba, count, size, entries_crc = fields
    sectors = disk_bytes // sector_bytes
    start, end = entries_lba * sector_bytes, entries_lba * sector_bytes + count * size
    if entries_lba < 2 or end > len(head):
        raise TableRefused(f"the entries of its GUID partition table lie at sector {entries_lba}: not in its first MiB")
    entries = head[start:end]
    if crc32(entries) != entries_crc:
        raise TableRefused("the checksum of its GUID partition table's entries is wrong")
    if not end <= first * sector_bytes or not first - 1 <= last < sectors or not last < backup < sectors:
        raise TableRefused(
            f"its partition table speaks of sectors {first} to {last} and a copy at {backup}; the disk has {sectors}"
        )
    gpt = Gpt(
        sector_bytes=sector_bytes,
        backup_lba=backup,
        first_usable=first,
        last_usable=last,
        entries_lba=entries_lba,
        entry_count=count,
        entry_bytes=size,
        raw=header,
        entries=entries,
    )
    return Table(partitions=_in_order(_gpt_partitions(gpt)), gpt=gpt)


def _gpt_partitions(gpt: Gpt) -> list[Partition]:
    found = []
    for index in range(gpt.entry_count):
        kind, _, first, last, _, name = ENTRY.unpack_from(gpt.entries, index * gpt.entry_bytes)
        if kind == EMPTY_GUID:
            continue
        if not gpt.first_usable <= first <= last <= gpt.last_usable:
            raise TableRefused(f"partition {index + 1} goes from sector {first} to {last}, which it may not")
        found.append(
            Partition(
                number=index + 1,
                offset_bytes=first * gpt.sector_bytes,
                size_bytes=(last - first + 1) * gpt.sector_bytes,
                kind=str(uuid.UUID(bytes_le=kind)),
                name=name.decode("utf-16-le", "replace").partition("\0")[0],
            )
        )
    return found


def _read_mbr(head: bytes, disk_bytes: int) -> Table | None:
    if len(head) < SECTORS[0] or head[510:512] != MBR_MAGIC:
        return None
    found = []
    for number in range(1, 5):
        status, _, kind, _, first, sectors = MBR_ENTRY.unpack_from(head, MBR_AT + 16 * (number - 1))
        if status not in (0, 0x80):
            return None  # a boot sector of something else: a file system may have one
        if kind == 0 or sectors == 0:
            continue
        if kind == PROTECTIVE:
            raise TableRefused("its MBR says that there is a GUID partition table, and there is none")
        if first == 0 or (first + sectors) * SECTORS[0] > disk_bytes:
            raise TableRefused(f"partition {number} goes from sector {first} for {sectors}: beyond the disk's end")
        offset_bytes, size_bytes = first * SECTORS[0], sectors * SECTORS[0]
        found.append(Partition(number=number, offset_bytes=offset_bytes, size_bytes=size_bytes, kind=f"{kind:02x}"))
    return Table(partitions=_in_order(found)) if found else None


def _in_order(partitions: list[Partition]) -> tuple[Partition, ...]:
    """See that none lies over another one; gives them by number."""
    end_bytes = 0
    for each in sorted(partitions, key=lambda one: one.offset_bytes):
        if each.offset_bytes < end_bytes:
            raise TableRefused(f"partition {each.number} lies over another one")
        end_bytes = each.offset_bytes + each.size_bytes
    return tuple(partitions)


def crc32(data: bytes) -> int:
    """Give the CRC-32 of GUID partition tables, which is that of zlib."""
    return zlib.crc32(data) & 0xFFFFFFFF
