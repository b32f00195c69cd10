"""The memory that clones start from is loaded once, verified, sealed, and let go of."""

from __future__ import annotations

import asyncio
import fcntl
import os
from pathlib import Path

import pytest
from tests.engine.snapshots import PAGE, make_stopped, make_template

from hearth.engine.base import SnapshotRefused
from hearth.engine.manifest import MIB
from hearth.engine.qemu.memory_bases import MemoryBases
from hearth.engine.snapshot import MEMORY_FULL, StoredSnapshot, load


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "snapshots"


def template(root: Path, snapshot_id: str = "t1") -> StoredSnapshot:
    return load(make_template(root, snapshot_id))


async def inode_of(bases: MemoryBases, snapshot: StoredSnapshot, *, keep: bool = True) -> int:
    async with bases.open(snapshot, keep=keep) as descriptor:
        return os.fstat(descriptor).st_ino


async def test_the_copy_is_the_memory_and_nobody_can_change_it(root: Path) -> None:
    bases = MemoryBases()
    async with bases.open(template(root), keep=False) as descriptor:
        assert os.fstat(descriptor).st_size == MIB
        assert os.pread(descriptor, 3 * PAGE, PAGE) == b"\0" * PAGE + b"a" * 2 * PAGE
        assert fcntl.fcntl(descriptor, fcntl.F_GET_SEALS) & fcntl.F_SEAL_WRITE
        with pytest.raises(PermissionError):
            os.pwrite(descriptor, b"x", 0)


async def test_however_many_ask_there_is_one_copy(root: Path) -> None:
    bases, snapshot = MemoryBases(), template(root)
    inodes = await asyncio.gather(*(inode_of(bases, snapshot) for _ in range(8)))
    assert len(set(inodes)) == 1
    (snapshot.directory / MEMORY_FULL).unlink()
    assert await inode_of(bases, snapshot) == inodes[0], "it is kept"
    bases.close()
    with pytest.raises(SnapshotRefused, match="cannot be read"):
        await inode_of(bases, snapshot)


async def test_what_is_nobody_elses_is_not_kept(root: Path) -> None:
    bases, snapshot = MemoryBases(), template(root)
    await inode_of(bases, snapshot, keep=False)
    (snapshot.directory / MEMORY_FULL).unlink()
    with pytest.raises(SnapshotRefused):
        await inode_of(bases, snapshot, keep=False)


async def test_the_least_recently_used_go_first(root: Path) -> None:
    bases = MemoryBases(kept=2)
    snapshots = [template(root, f"t{number}") for number in range(3)]
    for number in (0, 1, 0, 2):
        await inode_of(bases, snapshots[number])
    for snapshot in snapshots:
        (snapshot.directory / MEMORY_FULL).unlink()
    await inode_of(bases, snapshots[0])
    await inode_of(bases, snapshots[2])
    with pytest.raises(SnapshotRefused):
        await inode_of(bases, snapshots[1])
    bases.close()


async def test_damage_is_refused_and_tried_again_by_who_asks_again(root: Path) -> None:
    bases, snapshot = MemoryBases(), template(root)
    with (snapshot.directory / MEMORY_FULL).open("r+b") as file:
        file.seek(2 * PAGE)
        file.write(b"b")
    with pytest.raises(SnapshotRefused, match="memory is damaged"):
        await inode_of(bases, snapshot)
    with (snapshot.directory / MEMORY_FULL).open("r+b") as file:
        file.seek(2 * PAGE)
        file.write(b"a")
    await inode_of(bases, snapshot)
    bases.close()


async def test_a_diff_is_nobodys_base(root: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.touch()
    stopped = load(make_stopped(root, "s1", template(root).manifest.full_memory, disk))
    with pytest.raises(SnapshotRefused, match="not a full one"):
        await inode_of(MemoryBases(), stopped)
