"""What every kind of storage for volumes has to do, each on the real thing."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from hearth.bounds import MAX_VOLUME_MIB, MIN_VOLUME_MIB
from hearth.errors import Conflict, InvalidInput, NotFound
from hearth.host.clock import ManualClock
from hearth.volume.base import (
    MEBIBYTE,
    AttachMode,
    FileSystem,
    Owner,
    VolumeBackend,
    VolumeInUse,
    VolumeSpec,
)
from hearth.volume.file import FileVolumes
from hearth.volume.holds import take

SIZE_MIB = 32
NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture(params=["file"])
def volumes(request: pytest.FixtureRequest, tmp_path: Path) -> VolumeBackend:
    backend = FileVolumes(tmp_path / "volumes", clock=ManualClock(NOW))
    backend.prepare()
    return backend


def spec(name: str, **fields: object) -> VolumeSpec:
    return VolumeSpec(**{"name": name, "size_mib": SIZE_MIB, **fields})  # type: ignore[arg-type]


@contextmanager
def opened(volumes: VolumeBackend, name: str, mode: AttachMode = AttachMode.READ_ONLY) -> Iterator[int]:
    descriptor = volumes.open(name, mode)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def ask(disk: int, *argv: str) -> str:
    """Run a tool of e2fsprogs on an open volume."""
    words = [*argv, f"/proc/self/fd/{disk}"]
    return subprocess.run(words, capture_output=True, check=True, pass_fds=[disk]).stdout.decode()


async def test_a_new_volume_has_its_size_a_clean_file_system_and_takes_up_little(volumes: VolumeBackend) -> None:
    made = await volumes.create(spec("data", owner=Owner(uid=1234, gid=4321), tags={"job": "job-1"}))
    assert (made.name, made.size_bytes, made.fs) == ("data", SIZE_MIB * MEBIBYTE, FileSystem.EXT4)
    assert made.created_at - NOW < timedelta(seconds=1)
    assert made.tags == {"job": "job-1"}
    assert made.allocated_bytes < made.size_bytes / 2
    assert await volumes.describe("data") == made
    with opened(volumes, "data") as disk:
        ask(disk, "e2fsck", "-fn")
        facts = ask(disk, "dumpe2fs", "-h")
        for line in (
            "volume name:   data",
            "Reserved block count:     0",
            "has_journal",
            "Filesystem state:         clean",
        ):
            assert line in facts
        top = ask(disk, "debugfs", "-R", "stat /")
        assert "User:  1234   Group:  4321" in top


async def test_a_blank_volume_is_all_zeros(volumes: VolumeBackend) -> None:
    made = await volumes.create(spec("blank", fs=FileSystem.NONE))
    with opened(volumes, "blank") as disk:
        assert os.pread(disk, made.size_bytes, 0) == bytes(made.size_bytes)


async def test_volumes_are_listed_by_name_until_they_are_deleted(volumes: VolumeBackend) -> None:
    assert await volumes.list() == []
    made = [await volumes.create(spec(name, fs=FileSystem.NONE)) for name in ("b", "a", "c+_.-1")]
    assert await volumes.list() == sorted(made, key=lambda volume: volume.name)
    for name in ("a", "b", "c+_.-1", "a"):
        await volumes.delete(name)
    assert await volumes.list() == []


async def test_of_many_who_make_one_name_one_succeeds(volumes: VolumeBackend) -> None:
    outcomes = await asyncio.gather(*(volumes.create(spec("data")) for _ in range(8)), return_exceptions=True)
    assert sum(not isinstance(outcome, BaseException) for outcome in outcomes) == 1
    assert sum(isinstance(outcome, Conflict) for outcome in outcomes) == 7
    with opened(volumes, "data") as disk:
        ask(disk, "e2fsck", "-fn")


@pytest.mark.parametrize("size_mib", [-1, 0, MIN_VOLUME_MIB - 1, MAX_VOLUME_MIB + 1])
async def test_sizes_out_of_bounds_are_refused_by_the_name_of_their_field(
    volumes: VolumeBackend, size_mib: int
) -> None:
    with pytest.raises(InvalidInput) as caught:
        await volumes.create(spec("data", size_mib=size_mib))
    assert caught.value.field == "size_mb"
    assert await volumes.list() == []


@pytest.mark.parametrize("name", ["", "..", "-x", "a/b", "../../etc", "a\0b"])
async def test_a_name_that_is_none_reaches_no_storage(volumes: VolumeBackend, name: str) -> None:
    for work in (
        volumes.create(spec(name)),
        volumes.delete(name),
        volumes.resize(name, SIZE_MIB),
        volumes.clone(name, "x"),
        volumes.describe(name),
        volumes.check(name),
    ):
        with pytest.raises(InvalidInput):
            await work
    with pytest.raises(InvalidInput):
        volumes.open(name, AttachMode.READ_ONLY)


async def test_what_is_not_there_is_said_to_be_missing(volumes: VolumeBackend) -> None:
    for work in (volumes.resize("x", SIZE_MIB), volumes.clone("x", "y"), volumes.describe("x"), volumes.check("x")):
        with pytest.raises(NotFound, match="'x'"):
            await work
    with pytest.raises(NotFound):
        volumes.open("x", AttachMode.READ_WRITE)


def write_files(disk: int, *, count: int) -> None:
    for number in range(count):
        subprocess.run(
            ["debugfs", "-w", "-R", f"write /proc/self/exe file{number}", f"/proc/self/fd/{disk}"],
            capture_output=True,
            check=True,
            pass_fds=[disk],
        )


async def test_a_volume_grows_with_its_file_system_and_keeps_what_it_holds(volumes: VolumeBackend) -> None:
    before = await volumes.create(spec("data"))
    with opened(volumes, "data", AttachMode.READ_WRITE) as disk:
        write_files(disk, count=2)
    grown = await volumes.resize("data", 4 * SIZE_MIB)
    assert grown.size_bytes == 4 * before.size_bytes
    assert grown.created_at == before.created_at
    with opened(volumes, "data") as disk:
        assert f"Block count:              {4 * SIZE_MIB * MEBIBYTE // 4096}" in ask(disk, "dumpe2fs", "-h")
        ask(disk, "e2fsck", "-fn")
        assert "file1" in ask(disk, "debugfs", "-R", "ls /")
    assert await volumes.resize("data", 4 * SIZE_MIB) == await volumes.describe("data")


async def test_a_blank_volume_grows_too(volumes: VolumeBackend) -> None:
    await volumes.create(spec("blank", fs=FileSystem.NONE))
    assert (await volumes.resize("blank", 2 * SIZE_MIB)).size_bytes == 2 * SIZE_MIB * MEBIBYTE


async def test_a_volume_never_shrinks(volumes: VolumeBackend) -> None:
    made = await volumes.create(spec("data"))
    with pytest.raises(InvalidInput, match="shrink") as caught:
        await volumes.resize("data", SIZE_MIB - 1)
    assert caught.value.field == "size_mb"
    assert await volumes.describe("data") == made


async def test_a_clone_is_equal_and_goes_its_own_way(volumes: VolumeBackend) -> None:
    source = await volumes.create(spec("data"))
    with opened(volumes, "data", AttachMode.READ_WRITE) as disk:
        write_files(disk, count=1)
    clone = await volumes.clone("data", "copy")
    assert (clone.size_bytes, clone.fs, clone.tags["cloned_from"]) == (source.size_bytes, source.fs, "data")
    with opened(volumes, "data") as one, opened(volumes, "copy", AttachMode.READ_WRITE) as other:
        assert os.pread(one, source.size_bytes, 0) == os.pread(other, source.size_bytes, 0)
        os.pwrite(other, b"changed", 4096)
        assert os.pread(one, 7, 4096) != b"changed"
    with pytest.raises(Conflict):
        await volumes.clone("data", "copy")
    await volumes.delete("data")
    assert (await volumes.describe("copy")).size_bytes == source.size_bytes


async def test_who_writes_keeps_everybody_else_away_and_readers_allow_copies(volumes: VolumeBackend) -> None:
    await volumes.create(spec("data"))
    with opened(volumes, "data", AttachMode.READ_WRITE) as writer:
        assert take(writer, AttachMode.READ_WRITE)
        for work in (
            volumes.delete("data"),
            volumes.resize("data", 2 * SIZE_MIB),
            volumes.clone("data", "x"),
            volumes.check("data"),
        ):
            with pytest.raises(VolumeInUse, match="data"):
                await work
    with opened(volumes, "data") as reader:
        assert take(reader, AttachMode.READ_ONLY)
        await volumes.clone("data", "copy")
        with pytest.raises(VolumeInUse):
            await volumes.delete("data")
    assert [volume.name for volume in await volumes.list()] == ["copy", "data"]


async def test_a_clean_volume_needs_no_mending(volumes: VolumeBackend) -> None:
    await volumes.create(spec("data"))
    await volumes.create(spec("blank", fs=FileSystem.NONE))
    assert await volumes.check("data") is False
    assert await volumes.check("blank") is False


async def test_work_that_is_cancelled_leaves_nothing(volumes: VolumeBackend) -> None:
    await volumes.create(spec("data"))
    cancelled = 0
    for moment_ms in range(24):
        for work in (volumes.create(spec("new")), volumes.clone("data", "new"), volumes.resize("data", 2 * SIZE_MIB)):
            task = asyncio.ensure_future(work)
            await asyncio.wait({task}, timeout=moment_ms / 1000)
            cancelled += task.cancel()
            await asyncio.wait({task})
            for volume in await volumes.list():  # what was finished in the last moment is whole
                with opened(volumes, volume.name) as disk:
                    ask(disk, "e2fsck", "-fn")
            await volumes.delete("new")
    assert cancelled > 3
    assert [volume.name for volume in await volumes.list()] == ["data"]
    assert await volumes.sweep() == []
    with opened(volumes, "data") as disk:
        ask(disk, "e2fsck", "-fn")
