"""Partition tables that sfdisk wrote are read as it reads them; those that lie are refused with words."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.disks import ESP, LINUX, MIB, disk

from hearth.host.partitions import HEAD_BYTES, Table, TableRefused, crc32, read_table

ENTRIES_AT, HEADER_AT = 1024, 512


def read(path: Path) -> Table | None:
    data = path.read_bytes()
    return read_table(data[:HEAD_BYTES], len(data))


@pytest.fixture
def gpt(tmp_path: Path) -> Path:
    return disk(tmp_path / "gpt", 32, [(LINUX, 16), (ESP, 4)])


@pytest.mark.parametrize(("label", "kinds"), [("gpt", (LINUX.lower(), ESP.lower())), ("dos", ("83", "ef"))])
def test_partitions_are_where_sfdisk_put_them(tmp_path: Path, label: str, kinds: tuple[str, str]) -> None:
    table = read(disk(tmp_path / "disk", 32, [(kinds[0], 16), (kinds[1], 4)], label))
    assert table is not None
    found = [(each.number, each.offset_bytes, each.size_bytes, each.kind) for each in table.partitions]
    assert found == [(1, MIB, 16 * MIB, kinds[0]), (2, 17 * MIB, 4 * MIB, kinds[1])]


def test_a_disk_without_a_table_has_none() -> None:
    assert read_table(bytes(HEAD_BYTES), HEAD_BYTES) is None
    boot_sector = bytes(446) + bytes([0x33]) * 64 + b"\x55\xaa"
    assert read_table(boot_sector, 512) is None


def test_a_partition_that_is_not_there_is_named(gpt: Path) -> None:
    table = read(gpt)
    assert table is not None
    with pytest.raises(TableRefused, match="no partition 7; there are: 1, 2"):
        table.partition(7)


def resealed(data: bytearray) -> bytes:
    """Give the disk with right checksums: only then its values are looked at."""
    (count, size) = struct.unpack_from("<II", data, HEADER_AT + 80)
    span = data[ENTRIES_AT : ENTRIES_AT + min(count * size, HEAD_BYTES)]
    struct.pack_into("<I", data, HEADER_AT + 88, crc32(bytes(span)))
    struct.pack_into("<I", data, HEADER_AT + 16, 0)
    (length,) = struct.unpack_from("<I", data, HEADER_AT + 12)
    struct.pack_into("<I", data, HEADER_AT + 16, crc32(bytes(data[HEADER_AT : HEADER_AT + min(length, 512)])))
    return bytes(data)


def put(form: str, at: int, *values: int) -> Callable[[bytearray], None]:
    return lambda data: struct.pack_into(form, data, at, *values)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (put("<Q", HEADER_AT + 72, 1 << 62), "not in its first MiB"),
        (put("<Q", HEADER_AT + 72, 0), "not in its first MiB"),
        (put("<I", HEADER_AT + 80, 0xFFFFFFFF), "entries of"),
        (put("<I", HEADER_AT + 80, 0), "entries of"),
        (put("<I", HEADER_AT + 84, 100), "entries of 100 bytes"),
        (put("<I", HEADER_AT + 12, 1 << 31), "a header of"),
        (put("<Q", HEADER_AT + 24, 2), "says 2"),
        (put("<Q", HEADER_AT + 32, 1 << 63), "a copy at"),
        (put("<Q", HEADER_AT + 40, 1), "speaks of sectors 1"),
        (put("<Q", HEADER_AT + 48, 1 << 50), "speaks of sectors"),
        (put("<QQ", ENTRIES_AT + 32, 1 << 60, 1 << 61), "partition 1 goes from"),
        (put("<QQ", ENTRIES_AT + 32, 4096, 2048), "partition 1 goes from"),
        (put("<QQ", ENTRIES_AT + 128 + 32, 2048, 4096), "lies over another"),
    ],
)
def test_absurd_values_are_refused_with_words(gpt: Path, change: Callable[[bytearray], None], words: str) -> None:
    data = bytearray(gpt.read_bytes())
    change(data)
    sealed = resealed(data)
    with pytest.raises(TableRefused, match=words):
        read_table(sealed[:HEAD_BYTES], len(sealed))


@pytest.mark.parametrize("at", [HEADER_AT + 60, ENTRIES_AT + 100])
def test_a_flipped_byte_is_seen_by_its_checksum(gpt: Path, at: int) -> None:
    data = bytearray(gpt.read_bytes())
    data[at] ^= 1
    with pytest.raises(TableRefused, match="checksum"):
        read_table(bytes(data[:HEAD_BYTES]), len(data))


def test_a_protective_mbr_without_its_table_is_refused(gpt: Path) -> None:
    data = bytearray(gpt.read_bytes())
    data[HEADER_AT : HEADER_AT + 512] = bytes(512)
    with pytest.raises(TableRefused, match="there is none"):
        read_table(bytes(data[:HEAD_BYTES]), len(data))


def test_an_mbr_that_leads_beyond_the_disk_is_refused(tmp_path: Path) -> None:
    path = disk(tmp_path / "dos", 32, [("83", 16)], "dos")
    with pytest.raises(TableRefused, match="beyond the disk's end"):
        read_table(path.read_bytes()[:HEAD_BYTES], 8 * MIB)


def test_whatever_is_there_is_read_or_refused_and_nothing_else(gpt: Path) -> None:
    """Two thousand damaged tables with right checksums: each is read within its disk, or refused with words."""
    original = gpt.read_bytes()[: 64 * 1024]
    chance = random.Random(7)
    for _ in range(2000):
        data = bytearray(original)
        for _ in range(chance.randint(1, 8)):
            data[chance.choice([chance.randrange(440, 640), chance.randrange(1024, 1400)])] = chance.randrange(256)
        try:
            table = read_table(resealed(data), 32 * MIB)
        except TableRefused:
            continue
        for each in () if table is None else table.partitions:
            assert 0 < each.offset_bytes < each.offset_bytes + each.size_bytes <= 32 * MIB
