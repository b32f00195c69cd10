"""Volumes of files on real file systems: full ones, ones cut off in the middle, ones a guest left dirty or broken."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.volume.conftest import mounted, small_file_system

from hearth.errors import NoSpace, NotFound
from hearth.host.clock import SystemClock
from hearth.host.files import hash_file
from hearth.volume import ext4
from hearth.volume.base import MEBIBYTE, AttachMode, FileSystem, Owner, VolumeDamaged, VolumeSpec
from hearth.volume.file import FileVolumes

WORK_FOR_EVER = """
import asyncio, sys
from pathlib import Path
from hearth.host.clock import SystemClock
from hearth.host.files import hash_file
from hearth.volume import ext4
from hearth.volume.base import VolumeSpec
from hearth.volume.file import FileVolumes
async def main():
    volumes = FileVolumes(Path(sys.argv[1]), clock=SystemClock())
    print("started", flush=True)
    for turn in range(10**9):
        await volumes.create(VolumeSpec(name=f"made-{turn}", size_mib=32))
        await volumes.clone("base", f"cloned-{turn}")
        await volumes.resize(f"cloned-{turn}", 64)
        print(turn, flush=True)
asyncio.run(main())
"""


def disk_of(volumes: FileVolumes, name: str) -> Path:
    descriptor = volumes.open(name, AttachMode.READ_ONLY)
    try:
        return Path(f"/proc/self/fd/{descriptor}").readlink()
    finally:
        os.close(descriptor)


def sync(point: Path) -> None:
    subprocess.run(["sync", "-f", str(point)], check=True)


def require_clean(image: Path) -> None:
    subprocess.run(["e2fsck", "-fn", str(image)], capture_output=True, check=True)


@pytest.mark.root
async def test_a_new_volume_mounts_belongs_to_the_sandbox_user_and_can_be_filled_to_the_brim(
    volumes: FileVolumes, tmp_path: Path
) -> None:
    await volumes.create(VolumeSpec(name="data", size_mib=64))
    with mounted(disk_of(volumes, "data"), tmp_path / "point") as point:
        assert (point.stat().st_uid, point.stat().st_gid) == (1000, 1000)
        with (point / "file").open("wb") as file:
            file.write(os.urandom(50 * MEBIBYTE))
    require_clean(disk_of(volumes, "data"))


async def test_volumes_are_for_their_owner_alone(volumes: FileVolumes) -> None:
    await volumes.create(VolumeSpec(name="data", size_mib=32))
    disk = disk_of(volumes, "data")
    assert disk.stat().st_mode & 0o777 == 0o600
    assert disk.stat().st_uid == os.geteuid()
    assert disk.parent.stat().st_mode & 0o777 == 0o700


@pytest.mark.root
async def test_what_could_not_be_filled_is_refused_before_the_first_byte(tmp_path: Path) -> None:
    with small_file_system(tmp_path, 64) as host:
        volumes = FileVolumes(host / "v", clock=SystemClock())
        volumes.prepare()
        used = shutil.disk_usage(host).used
        with pytest.raises(NoSpace, match="free"):
            await volumes.create(VolumeSpec(name="large", size_mib=512))
        await volumes.create(VolumeSpec(name="small", size_mib=16))
        with pytest.raises(NoSpace, match="free"):
            await volumes.resize("small", 512)
        await volumes.delete("small")
        assert await volumes.list() == []
        assert shutil.disk_usage(host).used == used


@pytest.mark.root
async def test_a_disk_that_fills_up_while_a_volume_is_copied_is_said_and_nothing_is_left(tmp_path: Path) -> None:
    with small_file_system(tmp_path, 64) as host:
        volumes = FileVolumes(host / "v", clock=SystemClock())
        volumes.prepare()
        await volumes.create(VolumeSpec(name="data", size_mib=40))
        disk = disk_of(volumes, "data")
        put_random_file(disk, tmp_path / "random", 25 * MEBIBYTE)
        before = hash_file(disk)
        # Growing by 1 MiB would fit; the copy it is done in does not, on a file system that cannot share blocks.
        with pytest.raises(NoSpace, match="full"):
            await volumes.resize("data", 41)
        assert hash_file(disk) == before
        assert [path.name for path in (host / "v" / "disks").iterdir()] == ["data"]
        assert (await volumes.describe("data")).size_bytes == 40 * MEBIBYTE


@pytest.mark.root
async def test_a_disk_that_fills_up_while_the_file_system_is_made_is_said_to_be_full(tmp_path: Path) -> None:
    with small_file_system(tmp_path, 64) as host:
        descriptor = os.open(host / "disk", os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.ftruncate(descriptor, 32 * MEBIBYTE)
            fill(host / "filling", leave_kib=40)
            with pytest.raises(NoSpace, match="mke2fs"):
                await ext4.make(descriptor, label="data", owner=Owner())
        finally:
            os.close(descriptor)


def put_random_file(disk: Path, source: Path, size_bytes: int) -> None:
    """Put a file of random bytes into a volume that nobody has mounted."""
    source.write_bytes(os.urandom(size_bytes))
    subprocess.run(["debugfs", "-w", "-R", f"write {source} file", str(disk)], capture_output=True, check=True)


def fill(path: Path, *, leave_kib: int) -> None:
    """Leave that much of a file system free."""
    with path.open("wb") as file:
        room = os.fstatvfs(file.fileno())
        os.posix_fallocate(file.fileno(), 0, room.f_bavail * room.f_frsize - leave_kib * 1024)


def killed_at_work(root: Path) -> None:
    """Have another process make volumes and kill it while there is something unfinished."""
    with subprocess.Popen([sys.executable, "-c", WORK_FOR_EVER, str(root)], stdout=subprocess.PIPE) as worker:
        assert worker.stdout is not None
        worker.stdout.readline()
        while not unfinished(root):
            assert worker.poll() is None
        worker.send_signal(signal.SIGKILL)


def unfinished(root: Path) -> list[Path]:
    return list((root / "disks").glob("*.tmp"))


async def swept(volumes: FileVolumes, root: Path) -> list[str]:
    """Sweep until nothing is unfinished: a child that was being started holds its parent's lock for a moment longer."""
    found: list[str] = []
    async with asyncio.timeout(60):
        while unfinished(root):
            found += await volumes.sweep()
    return found


async def test_a_maker_that_is_killed_leaves_only_what_the_sweep_removes(volumes: FileVolumes, tmp_path: Path) -> None:
    await volumes.create(VolumeSpec(name="base", size_mib=32))
    root = tmp_path / "volumes"
    found: list[str] = []
    rounds = 0
    while rounds < 6 or not found:  # one that went on until the signal came may have left nothing
        rounds += 1
        await asyncio.to_thread(killed_at_work, root)
        found += await swept(volumes, root)
        for volume in await volumes.list():
            assert volume.fs is FileSystem.EXT4
            require_clean(disk_of(volumes, volume.name))
            if volume.name != "base":
                await volumes.delete(volume.name)


async def test_a_sweep_leaves_alone_what_somebody_works_on(volumes: FileVolumes, tmp_path: Path) -> None:
    root = tmp_path / "volumes"
    making = asyncio.create_task(volumes.create(VolumeSpec(name="data", size_mib=32)))
    async with asyncio.timeout(60):
        while not unfinished(root):
            await asyncio.sleep(0)
    assert await volumes.sweep() == []
    assert (await making).name == "data"


@pytest.mark.root
async def test_a_volume_that_was_not_unmounted_is_mended_and_then_mounts_read_only(
    volumes: FileVolumes, tmp_path: Path
) -> None:
    await volumes.create(VolumeSpec(name="data", size_mib=32))
    disk = disk_of(volumes, "data")
    with mounted(disk, tmp_path / "point") as point:
        (point / "file").write_text("kept")
        sync(point)
        as_the_power_went = disk.read_bytes()
    disk.write_bytes(as_the_power_went)
    assert await volumes.check("data") is True
    assert await volumes.check("data") is False
    require_clean(disk)
    disk.chmod(0o400)
    with mounted(disk, tmp_path / "point", "ro") as point:
        assert (point / "file").read_text() == "kept"


async def test_a_volume_that_is_broken_beyond_mending_is_said_to_be_and_stays_as_it_was(volumes: FileVolumes) -> None:
    await volumes.create(VolumeSpec(name="data", size_mib=32))
    disk = disk_of(volumes, "data")
    with disk.open("r+b") as file:  # the group descriptors and the first inode tables
        file.seek(4096)
        file.write(os.urandom(2 * MEBIBYTE))
    broken = disk.read_bytes()
    with pytest.raises(VolumeDamaged, match="e2fsck"):
        await volumes.resize("data", 64)
    assert disk.read_bytes() == broken
    assert disk.stat().st_uid == os.geteuid()
    assert await volumes.sweep() == []


async def test_a_volume_that_is_just_getting_its_name_gets_it_whole_or_not_at_all(
    volumes: FileVolumes, tmp_path: Path
) -> None:
    await volumes.create(VolumeSpec(name="base", size_mib=32))
    put_random_file(disk_of(volumes, "base"), tmp_path / "random", 16 * MEBIBYTE)
    disks = tmp_path / "volumes" / "disks"
    for _ in range(5):
        cloning = asyncio.create_task(volumes.clone("base", "copy"))
        async with asyncio.timeout(60):
            while not any(disks.glob("*.tmp/volume.json")) and not cloning.done():
                await asyncio.sleep(0)
        cloning.cancel()
        await asyncio.wait({cloning})
        assert unfinished(tmp_path / "volumes") == []
        for directory in disks.iterdir():
            assert sorted(path.name for path in directory.iterdir()) == ["disk", "volume.json"]
        await volumes.delete("copy")


async def test_a_volume_whose_facts_are_lost_is_said_to_be_damaged_and_hides_no_other(volumes: FileVolumes) -> None:
    for name in ("data", "other"):
        await volumes.create(VolumeSpec(name=name, size_mib=32))
    (disk_of(volumes, "data").parent / "volume.json").write_text("{")
    (disk_of(volumes, "data").parent.parent / "stray").write_text("no volume")
    assert [volume.name for volume in await volumes.list()] == ["other"]
    with pytest.raises(VolumeDamaged, match=r"volume\.json"):
        await volumes.describe("data")
    with pytest.raises(NotFound):
        await volumes.describe("stray")
    await volumes.delete("data")
    await volumes.delete("stray")


async def test_a_link_in_place_of_the_bytes_is_not_followed(volumes: FileVolumes, tmp_path: Path) -> None:
    await volumes.create(VolumeSpec(name="data", size_mib=32))
    disk = disk_of(volumes, "data")
    disk.unlink()
    disk.symlink_to("/etc/passwd")
    with pytest.raises(OSError, match="symbolic links"):
        volumes.open("data", AttachMode.READ_WRITE)
