"""What has to be written where, for a partition table to know of a disk that became larger. Pure.

A GUID partition table has a copy at the disk's end, which a larger disk ends somewhere else (UEFI specification 2.10,
section 5.3). Written in the order given here, at each moment one of the two is whole.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace

from hearth.host.partitions import (
    EXTENDED,
    HEADER,
    MBR_AT,
    MBR_ENTRY,
    PROTECTIVE,
    SECTORS,
    Gpt,
    Partition,
    Table,
    TableRefused,
    crc32,
)

ALIGNMENT_BYTES = 1 << 20
"""Ends of grown partitions lie on whole MiB, as their beginnings do."""
MBR_SECTORS_MAX = 0xFFFFFFFF
ENTRY_LAST_AT = 40
MBR_COUNT_AT = 12


@dataclass(frozen=True, kw_only=True)
class Write:
    """Bytes for a place on the disk."""

    offset_bytes: int
    data: bytes


@dataclass(frozen=True, kw_only=True)
class GrowthPlan:
    """What to write, in this order, each durable before the next; ``partition`` is the last one as it is then."""

    writes: Sequence[Write]
    partition: Partition | None


def plan_growth(head: bytes, table: Table, disk_bytes: int, *, with_partition: bool) -> GrowthPlan:
    """Plan what a table needs on a disk of ``disk_bytes``; a table that fits already needs nothing.

    Args:
        head: the disk's first bytes, with its table.
        with_partition: let the last partition reach to the disk's end.

    Raises:
        TableRefused: the disk is smaller than its table says.
    """
    last = max(table.partitions, key=lambda each: each.offset_bytes, default=None)
    if table.gpt is not None:
        return _plan_gpt(head, table.gpt, last, disk_bytes, with_partition=with_partition)
    if last is None or not with_partition or int(last.kind, 16) in EXTENDED:
        return GrowthPlan(writes=(), partition=last)
    most_bytes = last.offset_bytes + MBR_SECTORS_MAX * SECTORS[0]
    grown = _grown(last, min(disk_bytes, most_bytes), SECTORS[0])
    if grown == last:
        return GrowthPlan(writes=(), partition=last)
    mbr = bytearray(head[: SECTORS[0]])
    _resize_entry(mbr, last, grown)
    return GrowthPlan(writes=(Write(offset_bytes=0, data=bytes(mbr)),), partition=grown)


def _plan_gpt(head: bytes, gpt: Gpt, last: Partition | None, disk_bytes: int, *, with_partition: bool) -> GrowthPlan:
    sector = gpt.sector_bytes
    sectors = disk_bytes // sector
    backup_entries = sectors - 1 - gpt.table_sectors
    last_usable = backup_entries - 1
    if last_usable < gpt.last_usable:
        if gpt.backup_lba == sectors - 1:
            return GrowthPlan(writes=(), partition=last)
        raise TableRefused("the disk is too small for its partition table")
    entries, grown = bytearray(gpt.entries), last
    if with_partition and last is not None:
        grown = _grown(last, (last_usable + 1) * sector, sector)
        end = (grown.offset_bytes + grown.size_bytes) // sector - 1
        struct.pack_into("<Q", entries, (last.number - 1) * gpt.entry_bytes + ENTRY_LAST_AT, end)
    if gpt.backup_lba == sectors - 1 and bytes(entries) == gpt.entries:
        return GrowthPlan(writes=(), partition=last)
    table_bytes = bytes(entries).ljust(gpt.table_sectors * sector, b"\0")
    made = _Headers(gpt=gpt, sectors=sectors, last_usable=last_usable, entries_crc=crc32(bytes(entries)))
    writes = [
        Write(offset_bytes=backup_entries * sector, data=table_bytes),
        Write(offset_bytes=(sectors - 1) * sector, data=made.header(sectors - 1, 1, backup_entries)),
        Write(offset_bytes=gpt.entries_lba * sector, data=table_bytes),
        Write(offset_bytes=sector, data=made.header(1, sectors - 1, gpt.entries_lba)),
        Write(offset_bytes=0, data=_protective(head[:sector], gpt, last, grown, sectors)),
    ]
    if gpt.backup_lba < backup_entries:
        writes.append(Write(offset_bytes=gpt.backup_lba * sector, data=bytes(sector)))  # the copy that was there
    return GrowthPlan(writes=writes, partition=grown)


@dataclass(frozen=True, kw_only=True)
class _Headers:
    """Headers for the new size of a disk."""

    gpt: Gpt
    sectors: int
    last_usable: int
    entries_crc: int

    def header(self, own_lba: int, other_lba: int, entries_lba: int) -> bytes:
        """Give a whole sector with one of the two headers."""
        fields = list(HEADER.unpack_from(self.gpt.raw))
        fields[3], fields[5], fields[6] = 0, own_lba, other_lba
        fields[8], fields[10], fields[13] = self.last_usable, entries_lba, self.entries_crc
        raw = bytearray(self.gpt.raw)
        HEADER.pack_into(raw, 0, *fields)
        struct.pack_into("<I", raw, 16, crc32(bytes(raw)))
        return bytes(raw).ljust(self.gpt.sector_bytes, b"\0")


def _protective(mbr: bytes, gpt: Gpt, last: Partition | None, grown: Partition | None, sectors: int) -> bytes:
    """Let the MBR that guards the table reach to the new end, and a hybrid one tell of the last partition as it is."""
    changed = bytearray(mbr)
    for number in range(4):
        at = MBR_AT + MBR_ENTRY.size * number
        _, _, kind, _, first, count = MBR_ENTRY.unpack_from(changed, at)
        if kind == PROTECTIVE and (first + count > gpt.backup_lba or count == MBR_SECTORS_MAX):
            struct.pack_into("<I", changed, at + MBR_COUNT_AT, min(sectors - first, MBR_SECTORS_MAX))
    if last is not None and grown is not None and grown != last:
        _resize_entry(changed, last, grown)
    return bytes(changed)


def _resize_entry(mbr: bytearray, was: Partition, grown: Partition) -> None:
    for number in range(4):
        at = MBR_AT + MBR_ENTRY.size * number
        _, _, kind, _, first, count = MBR_ENTRY.unpack_from(mbr, at)
        if kind not in (0, PROTECTIVE) and (first, count) == (was.offset_bytes // 512, was.size_bytes // 512):
            struct.pack_into("<I", mbr, at + MBR_COUNT_AT, min(grown.size_bytes // 512, MBR_SECTORS_MAX))


def _grown(partition: Partition, end_bytes: int, sector_bytes: int) -> Partition:
    """Let a partition reach to ``end_bytes``, or the whole MiB before; it never shrinks."""
    aligned = end_bytes // max(ALIGNMENT_BYTES, sector_bytes) * max(ALIGNMENT_BYTES, sector_bytes)
    size_bytes = max(partition.size_bytes, aligned - partition.offset_bytes)
    return replace(partition, size_bytes=size_bytes)
