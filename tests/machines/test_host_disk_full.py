"""A host whose disk fills up under a running guest: the guest stands still, and loses nothing."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.boot import link_images
from tests.machines.sleepers import QUIET, VmHouse, opened

from hearth.config import DataDirectory, Settings
from hearth.control.daemon import Daemon, open_daemon
from hearth.control.sleep import MAX_FAILED_STARTS
from hearth.errors import HearthError, NoSpace
from hearth.model import Heat, SandboxSpec, SandboxState, User
from hearth.wire.messages import ExecRequest

DISK_MIB = 600
WRITE_S = 120.0
MUCH_BYTES = 80_000_000
DD = ["/bin/sh", "-c", "dd if=/dev/zero of=/tmp/big bs=1M count=250 conv=fsync 2>/dev/null; sha256sum < /tmp/big"]


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """An ext4 file system of its own for the data directory, with a path short enough for sockets."""
    directory = Path(tempfile.mkdtemp(prefix="hearth-full-"))
    image, mount = directory / "disk.img", directory / "m"
    mount.mkdir()
    with image.open("wb") as file:
        file.truncate(DISK_MIB * 1024 * 1024)
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", "-F", str(image)], check=True)
    subprocess.run(["mount", "-o", "loop", str(image), str(mount)], check=True)
    try:
        yield mount
    finally:
        subprocess.run(["umount", str(mount)], check=True)
        shutil.rmtree(directory)


async def run(daemon: Daemon, admin: User, *argv: str) -> bytes:
    out = bytearray()
    async with daemon.sandboxes.execute(admin, "dev", ExecRequest(argv=list(argv))) as running:
        async for chunk in running:
            out += chunk.data
    return bytes(out)


async def test_a_guest_stands_still_while_the_hosts_disk_is_full_and_then_goes_on(small_disk: Path) -> None:
    data = DataDirectory(root=small_disk / "d")
    link_images(data)
    settings = Settings(min_free_mib=1, pool_ready=0)
    async with open_daemon(data, settings) as daemon:
        admin = await daemon.users.authenticate(data.admin_key.read_text().strip())
        try:
            await daemon.sandboxes.create(admin, SandboxSpec(name="dev"))
            ballast = small_disk / "ballast"
            free = shutil.disk_usage(small_disk).free
            ballast.write_bytes(b"\1" * (free - 100 * 1024 * 1024))
            writing = asyncio.create_task(run(daemon, admin, *DD))
            resident = daemon.sandboxes.sleep.residents[(await daemon.sandboxes.get(admin, "dev")).id]
            async with asyncio.timeout(WRITE_S):
                while resident.halted is None:
                    await asyncio.sleep(0.1)
            assert "No space left" in resident.halted
            with pytest.raises(NoSpace, match="disk is full"):
                await run(daemon, admin, "true")

            ballast.unlink()
            assert await run(daemon, admin, "echo", "again") == b"again\n"
            assert (await daemon.sandboxes.get(admin, "dev")).error is None
            async with asyncio.timeout(WRITE_S):
                digest = (await writing).split()[0].decode()
            assert digest == hashlib.sha256(bytes(250 * 1024 * 1024)).hexdigest()
        finally:
            with contextlib.suppress(HearthError):
                await daemon.sandboxes.destroy(admin, "dev")


async def test_a_sandbox_can_be_destroyed_when_there_is_no_room_even_for_a_row(small_disk: Path) -> None:
    data = DataDirectory(root=small_disk / "d")
    link_images(data)
    async with open_daemon(data, Settings(min_free_mib=1, pool_ready=0)) as daemon:
        admin = await daemon.users.authenticate(data.admin_key.read_text().strip())
        await daemon.sandboxes.create(admin, SandboxSpec(name="dev"))
        fill(small_disk / "ballast")

        await daemon.sandboxes.destroy(admin, "dev")

        assert await daemon.sandboxes.count() == 0
        assert list(data.machines.iterdir()) == []


async def test_a_stop_or_wake_that_finds_the_disk_full_loses_nothing(small_disk: Path) -> None:
    ballast = small_disk / "ballast"
    data = DataDirectory(root=small_disk / "d")
    link_images(data)
    async with opened(data, replace(QUIET, min_free_mib=1)) as house:
        try:
            dev = await house.create("dev")
            await house.mark(dev, "kept")
            await house.shell(dev, f"head -c {MUCH_BYTES} /dev/urandom > /dev/shm/much")

            filling = asyncio.create_task(fill_when_it_begins(house, ballast))
            with pytest.raises(NoSpace):
                await house.sandboxes.sleep.stop(dev.id)
            await filling
            assert ((await house.look(dev)).state, house.heat(dev)) == (SandboxState.RUNNING, Heat.HOT)
            assert not await house.is_frozen(dev)
            assert not any(path.name.startswith("stop-") for path in house.data.snapshots.iterdir())
            ballast.unlink()
            assert await house.marks(dev) == ("kept", "kept")

            await house.stop(dev)
            fill(ballast)
            for _ in range(MAX_FAILED_STARTS + 1):
                with pytest.raises(NoSpace, match="nothing is lost"):
                    await house.marks(dev)
                assert (await house.look(dev)).state is SandboxState.STOPPED
            ballast.unlink()
            assert await house.marks(dev) == ("kept", "kept")
        finally:
            ballast.unlink(missing_ok=True)
            await house.destroy_all()


async def fill_when_it_begins(house: VmHouse, ballast: Path) -> None:
    """Leave less room than the memory takes, from the moment its first file is about to be written."""
    while not list(house.data.snapshots.glob("stop-*")):
        await asyncio.sleep(0)
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, shutil.disk_usage(ballast.parent).free - MUCH_BYTES // 4)


def fill(ballast: Path) -> None:
    """Leave no room even for a row."""
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(65_536))
