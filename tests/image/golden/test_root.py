"""Which part of a golden image is a sandbox's root, and what is refused."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from tests.disks import ESP, LINUX, MIB, ROOT_X86_64, disk, ext4, qcow2, run

from hearth.errors import HearthError
from hearth.host.guest_disk import GuestDisk
from hearth.image.golden.base import ImageRefused
from hearth.image.golden.root import Root, extract_root, find_root


async def found(path: Path, partition: int | None = None) -> Root:
    with path.open("rb") as file:
        return await find_root(opened(path, file.fileno()), partition)


def bytes_of(path: Path) -> bytes:
    return path.read_bytes()


def opened(path: Path, descriptor: int) -> GuestDisk:
    if path.suffix == ".qcow2":
        size = int(run("qemu-img", "info", "--output=json", path).split('"virtual-size": ')[1].split(",")[0])
        return GuestDisk(descriptor=descriptor, format="qcow2", size_bytes=size)
    return GuestDisk(descriptor=descriptor, format="raw", size_bytes=path.stat().st_size)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/mark").write_text("this one")
    return ext4(tmp_path / "root", 16, tmp_path / "tree", "rootfs")


@pytest.mark.parametrize(
    ("label", "kinds", "number"),
    [
        ("gpt", [ESP, LINUX], 2),
        ("gpt", [ROOT_X86_64, LINUX], 1),
        ("dos", ["ef", "83"], 2),
    ],
)
@pytest.mark.parametrize("image_format", ["raw", "qcow2"])
async def test_the_root_is_found_and_comes_out_as_it_is(
    root: Path, tmp_path: Path, label: str, kinds: Sequence[str], number: int, image_format: str
) -> None:
    parts: list[tuple[str, Path | int]] = [(kind, 4) for kind in kinds]
    parts[number - 1] = (kinds[number - 1], root)
    path = disk(tmp_path / "disk.raw", 32, parts, label)
    path = qcow2(path, compressed=True) if image_format == "qcow2" else path
    told: list[tuple[int, int]] = []
    with path.open("rb") as file:
        whole = opened(path, file.fileno())
        place = await find_root(whole)
        await extract_root(whole, place, tmp_path / "out", lambda done, total: told.append((done, total)))
    assert place.partition == number
    assert bytes_of(tmp_path / "out") == bytes_of(root)
    assert told[-1] == (16 * MIB, 16 * MIB)
    assert (tmp_path / "out").stat().st_blocks * 512 < 8 * MIB, "holes stay holes"


async def test_a_disk_that_is_a_file_system_is_the_root_itself(root: Path) -> None:
    assert await found(root) == Root(partition=0, offset_bytes=0, size_bytes=16 * MIB)
    assert await found(qcow2(root), 0) == Root(partition=0, offset_bytes=0, size_bytes=16 * MIB)


async def test_of_two_the_one_called_root_counts_and_a_number_more(root: Path, tmp_path: Path) -> None:
    other = ext4(tmp_path / "other", 8, label="home")
    path = disk(tmp_path / "disk.raw", 32, [(LINUX, other), (LINUX, root)])
    assert (await found(path)).partition == 2
    assert (await found(path, 1)).partition == 1


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("nothing", "holds nothing known"),
        ("xfs", "holds XFS"),
        ("luks", "encrypted"),
        ("lvm", "LVM"),
        ("long", "more than the"),
        ("journal", "journal on another disk"),
    ],
)
async def test_what_can_be_no_root_is_refused_with_words(root: Path, tmp_path: Path, content: str, words: str) -> None:
    starts = {"nothing": b"", "xfs": b"XFSB", "luks": b"LUKS\xba\xbe", "lvm": bytes(512) + b"LABELONE"}
    data = bytearray(bytes_of(root))
    if content in starts:
        data = bytearray(starts[content].ljust(16 * MIB, b"\0"))
    elif content == "long":
        data[1024 + 4 : 1024 + 8] = b"\xff\xff\xff\x7f"
    else:
        data[1024 + 96] |= 8
    (tmp_path / "bad").write_bytes(data)
    path = disk(tmp_path / "disk.raw", 32, [(LINUX, tmp_path / "bad")])
    with pytest.raises(ImageRefused, match=words) as refusal:
        await found(path, 1)
    assert refusal.value.field == "partition"
    with pytest.raises(ImageRefused, match=words if content in ("long", "journal") else "0 partitions with ext4"):
        await found(path)


async def test_two_that_look_alike_are_listed(tmp_path: Path) -> None:
    one, two = ext4(tmp_path / "one", 8), ext4(tmp_path / "two", 16)
    path = disk(tmp_path / "disk.raw", 32, [(LINUX, one), (LINUX, two)])
    with pytest.raises(ImageRefused, match=r"2 partitions with ext4.*1: ext4, 8 MiB; 2: ext4, 16 MiB"):
        await found(path)


@pytest.mark.parametrize(("number", "words"), [(9, "no partition 9"), (0, "holds nothing known")])
async def test_a_number_that_is_none_is_refused(root: Path, tmp_path: Path, number: int, words: str) -> None:
    with pytest.raises(ImageRefused, match=words):
        await found(disk(tmp_path / "disk.raw", 32, [(LINUX, root)]), number)
    with pytest.raises(ImageRefused, match="no partition table"):
        await found(root, 1)


async def test_a_part_that_cannot_be_read_leaves_nothing(root: Path, tmp_path: Path) -> None:
    with root.open("rb") as file:
        disk_there = opened(root, file.fileno())
        with pytest.raises(HearthError):
            await extract_root(
                disk_there,
                Root(partition=0, offset_bytes=0, size_bytes=64 * MIB),
                tmp_path / "out",
                lambda *_: None,
            )
    assert not (tmp_path / "out").exists()
