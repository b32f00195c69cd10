"""Tables, partitions and file systems that grew with their disk, judged by sgdisk, sfdisk and e2fsck."""

from __future__ import annotations

import os
import struct
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.disks import ESP, LINUX, MIB, disk, ext4, qcow2, run

from hearth.errors import InvalidInput
from hearth.host.growing import plan_growth
from hearth.host.guest_disk import GuestDisk
from hearth.host.partitions import HEAD_BYTES, Partition, read_table
from hearth.volume.golden.growing import Grown, grow_into, opened_disk

LARGE_MIB = 96


def raw_of(path: Path, image_format: str, scratch: Path) -> Path:
    """Give what a guest would see, as a file of its own."""
    run("qemu-img", "convert", "-f", image_format, "-O", "raw", path, scratch)
    return scratch


def require_good_gpt(raw: Path) -> str:
    """Let two independent tools judge a table; gives what sgdisk lists."""
    judged = run("sgdisk", "-v", raw)
    assert "No problems found" in judged, judged
    assert "No errors detected" in run("sfdisk", "--verify", raw)
    backup = run("dd", f"if={raw}", "bs=512", f"skip={raw.stat().st_size // 512 - 1}", "count=1", "status=none")
    assert backup.startswith("EFI PART"), "the copy is in the last sector"
    return run("sgdisk", "-p", raw)


@pytest.fixture
def part(tmp_path: Path) -> Path:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/mark").write_text("kept" * 1000)
    return ext4(tmp_path / "part", 16, tmp_path / "tree")


@asynccontextmanager
async def larger(path: Path, image_format: str = "raw") -> AsyncIterator[GuestDisk]:
    """Give a disk that was made larger."""
    run("qemu-img", "resize", "-q", "-f", image_format, path, f"{LARGE_MIB}M")
    async with opened_disk(path, image_format, LARGE_MIB * MIB) as opened:
        yield opened


@pytest.mark.parametrize("image_format", ["raw", "qcow2"])
@pytest.mark.parametrize("wanted", ["table", "partition"])
async def test_the_copy_of_a_table_moves_to_the_new_end_and_the_last_partition_grows(
    part: Path, tmp_path: Path, image_format: str, wanted: str
) -> None:
    path = disk(tmp_path / "disk.raw", 32, [(ESP, 4), (LINUX, part)])
    path = qcow2(path) if image_format == "qcow2" else path
    async with larger(path, image_format) as opened:
        assert await grow_into(opened, wanted, tmp_path) == Grown(what=wanted)
        assert await grow_into(opened, wanted, tmp_path) == Grown(what=wanted), "again is fine"
    raw = raw_of(path, image_format, tmp_path / "seen")
    require_good_gpt(raw)
    table = table_of(raw)
    expected_mib = 16 if wanted == "table" else LARGE_MIB - 1 - 4 - 1
    assert [each.size_bytes for each in table] == [4 * MIB, expected_mib * MIB]
    (size,) = struct.unpack_from("<I", head_of(raw), 446 + 12)
    assert size == LARGE_MIB * MIB // 512 - 1, "the protective MBR covers the disk"


def head_of(raw: Path) -> bytes:
    with raw.open("rb") as file:
        return file.read(HEAD_BYTES)


def table_of(raw: Path) -> Sequence[Partition]:
    table = read_table(head_of(raw), raw.stat().st_size)
    assert table is not None
    return table.partitions


async def test_a_clone_over_its_image_gets_a_table_of_its_own(part: Path, tmp_path: Path) -> None:
    base = qcow2(disk(tmp_path / "disk.raw", 32, [(LINUX, part)]))
    over = tmp_path / "over.qcow2"
    run("qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", base, over, f"{LARGE_MIB}M")
    before = base.stat().st_mtime_ns
    async with opened_disk(over, "qcow2", LARGE_MIB * MIB, base, "qcow2") as opened:
        assert await grow_into(opened, "partition", tmp_path) == Grown(what="partition")
        with pytest.raises(InvalidInput, match="only its guest"):
            await grow_into(opened, "filesystem", tmp_path)
    require_good_gpt(raw_of(over, "qcow2", tmp_path / "seen"))
    assert base.stat().st_mtime_ns == before
    start = run("dd", f"if={tmp_path / 'seen'}", "bs=1M", "skip=1", "count=16", "status=none", f"of={tmp_path / 'fs'}")
    assert start == ""
    run("e2fsck", "-fn", tmp_path / "fs")


@pytest.mark.parametrize("label", ["gpt", "dos", "none"])
async def test_a_file_system_fills_its_place_and_keeps_what_is_in_it(part: Path, tmp_path: Path, label: str) -> None:
    kind = LINUX if label == "gpt" else "83"
    path = part if label == "none" else disk(tmp_path / "disk.raw", 32, [(kind, part)], label)
    async with larger(path) as opened:
        assert await grow_into(opened, "filesystem", tmp_path) == Grown(what="filesystem")
        assert await grow_into(opened, "filesystem", tmp_path) == Grown(what="filesystem")
    if label == "gpt":
        require_good_gpt(path)
    if label != "none":
        assert "No errors detected" in run("sfdisk", "--verify", path)
        run("dd", f"if={path}", "bs=1M", "skip=1", f"of={tmp_path / 'fs'}", "status=none")
        path = tmp_path / "fs"
    with path.open("r+b") as file:
        file.truncate(LARGE_MIB * MIB)
    run("e2fsck", "-fn", path)
    assert int(run("dumpe2fs", "-h", path).split("Block count:")[1].split()[0]) * 1024 > 80 * MIB
    assert run("debugfs", "-R", "cat /mark", path) == "kept" * 1000


async def test_a_hybrid_mbr_keeps_its_entries_and_tells_of_the_grown_partition(part: Path, tmp_path: Path) -> None:
    path = disk(tmp_path / "disk.raw", 32, [(LINUX, part)])
    run("sgdisk", "-h", "1", path)
    async with larger(path) as opened:
        await grow_into(opened, "partition", tmp_path)
    assert "No problems found" in run("sgdisk", "-v", path)
    head, (partition,) = head_of(path), table_of(path)
    entries = [struct.unpack_from("<B3sB3sII", head, 446 + 16 * number) for number in range(4)]
    [hybrid] = [entry for entry in entries if entry[2] == 0x83]
    assert (hybrid[4] * 512, hybrid[5] * 512) == (partition.offset_bytes, partition.size_bytes)
    assert 0xEE in [entry[2] for entry in entries]


@pytest.mark.parametrize("content", ["xfs", "blank"])
async def test_what_only_a_guest_can_grow_is_left_to_it(tmp_path: Path, content: str) -> None:
    path = disk(tmp_path / "disk.raw", 32, [(LINUX, 16)])
    if content == "xfs":
        with path.open("r+b") as file:
            file.seek(MIB)
            file.write(b"XFSB")
    async with larger(path) as opened:
        grown = await grow_into(opened, "filesystem", tmp_path)
    assert grown.what == "partition"
    assert "only its guest can grow" in grown.why


async def test_a_table_that_cannot_be_believed_is_left_alone_unless_more_was_asked(tmp_path: Path) -> None:
    path = disk(tmp_path / "disk.raw", 32, [(LINUX, 16)])
    with path.open("r+b") as file:
        file.seek(600)
        file.write(b"\xff")
    async with larger(path) as opened:
        before = head_of(path)
        assert (await grow_into(opened, "table", tmp_path)).what == "none"
        for wanted in ("partition", "filesystem"):
            with pytest.raises(InvalidInput, match="checksum"):
                await grow_into(opened, wanted, tmp_path)
        assert head_of(path) == before
        assert await grow_into(opened, "none", tmp_path) == Grown(what="none")
        with pytest.raises(InvalidInput, match="grow 'all'"):
            await grow_into(opened, "all", tmp_path)


async def test_growth_cut_short_after_any_write_leaves_a_table_that_can_be_read(tmp_path: Path) -> None:
    """One of the two tables is whole after each write: sgdisk finds the partition by whichever it is."""
    from_start = disk(tmp_path / "disk.raw", 32, [(LINUX, 16)])
    os.truncate(from_start, LARGE_MIB * MIB)
    head = head_of(from_start)
    table = read_table(head, LARGE_MIB * MIB)
    assert table is not None
    plan = plan_growth(head, table, LARGE_MIB * MIB, with_partition=True)
    for count in range(len(plan.writes) + 1):
        path = tmp_path / f"cut-{count}"
        run("cp", "--sparse=always", from_start, path)
        with path.open("r+b") as file:
            for each in plan.writes[:count]:
                file.seek(each.offset_bytes)
                file.write(each.data)
        listed = run("sgdisk", "-i", "1", path)
        assert "First sector: 2048" in listed, f"after {count} writes: {listed}"
