"""Clones made ahead and templates: who gets them, when they are made anew, and that none is left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.boot import boot_files, link_images
from tests.machines.sleepers import QUIET, VmHouse, opened, traces_of, until
from tests.machines.test_first_light import vmms_of

from hearth.config import DataDirectory
from hearth.control.creation import Extras, new_sandbox, sized
from hearth.control.pool import Claimed
from hearth.control.templates import Shape
from hearth.engine.snapshot import MEMORY_FULL, STATE
from hearth.errors import HearthError, InitFailed, NoSpace, NotFound
from hearth.host.directory import load_tag
from hearth.model import SandboxSpec, SandboxState
from hearth.outfit import GuestFile, Outfit

pytestmark = pytest.mark.slow

READY = replace(QUIET, pool_ready=1)
SETTINGS = {"ready": READY, "waiting": replace(QUIET, pool_waiting=1)}
OTHER_MEMORY_MIB = 192
DOOMED_S = 240.0


def kept(house: VmHouse) -> list[Claimed]:
    return [clone for shelf in house.sandboxes.pool._shelves.values() for clone in (*shelf.ready, *shelf.waiting)]


async def filled(house: VmHouse) -> Claimed:
    """Wait for one clone to be kept, and give it."""
    await until(lambda: len(kept(house)) == 1, "a clone is made ahead")
    return kept(house)[0]


def everything_of(data: DataDirectory) -> list[str]:
    """All machines, networks and groups of a data directory."""
    tag = load_tag(data)
    places = (Path("/run/netns"), Path("/sys/fs/cgroup"))
    traces = [str(Path(base) / name) for place in places for base, names, _ in os.walk(place) for name in names]
    return [*map(str, data.machines.iterdir()), *(trace for trace in traces if f"-{tag}-" in trace)]


@pytest.mark.parametrize("kind", SETTINGS)
async def test_a_clone_made_ahead_becomes_the_next_sandbox(slept_in: DataDirectory, kind: str) -> None:
    async with opened(slept_in, SETTINGS[kind]) as house:
        async with house.sandbox("first"):
            assert house.sandboxes.pool.hits == {"miss": 1}
            clone = await filled(house)
            (pid,) = vmms_of(clone.sandbox_id)
            async with house.sandbox("second") as second:
                assert house.sandboxes.pool.hits == {"miss": 1, kind: 1}
                assert (second.id, vmms_of(second.id)) == (clone.sandbox_id, [pid])
                assert await house.shell(second, "hostname") == "second"
                await house.mark(second, "kept")
                await house.stop(second)
                assert await house.marks(second) == ("kept", "kept")
        await filled(house)
    assert everything_of(slept_in) == []


@pytest.mark.parametrize("kind", SETTINGS)
async def test_nobody_is_given_a_clone_that_has_died(slept_in: DataDirectory, kind: str) -> None:
    async with opened(slept_in, SETTINGS[kind]) as house, house.sandbox("first"):
        dead = await filled(house)
        os.kill(vmms_of(dead.sandbox_id)[0], signal.SIGKILL)
        await until(lambda: dead not in kept(house), "its end was seen")
        await until(lambda: traces_of(house.data, dead.sandbox_id) == [], "it is removed")
        await filled(house)

        dead = await filled(house)
        os.kill(vmms_of(dead.sandbox_id)[0], signal.SIGKILL)
        async with house.sandbox("second") as second:  # at once: its end may not have been seen
            assert await house.shell(second, "hostname") == "second"
    assert everything_of(slept_in) == []


async def test_a_clone_that_could_not_be_made_is_made_again_without_another_claim(slept_in: DataDirectory) -> None:
    async with opened(slept_in, READY) as house, house.sandbox("first") as first:

        def unmade() -> list[int]:
            others = [path.name for path in house.data.machines.iterdir() if path.name != first.id]
            return [pid for each in others for pid in vmms_of(each)]

        await until(lambda: bool(unmade()), "a clone is being made")
        was_kept = bool(kept(house))
        for pid in unmade():
            os.kill(pid, signal.SIGKILL)
        assert not was_kept, "it is rehearsed for seconds first"
        await filled(house)
    assert everything_of(slept_in) == []


@pytest.mark.parametrize("turns", [1, 20, 200], ids=["at once", "a little later", "later"])
async def test_a_sandbox_destroyed_while_it_takes_a_clone_leaves_nothing(slept_in: DataDirectory, turns: int) -> None:
    async with opened(slept_in, READY) as house, house.sandbox("first"):
        clone = await filled(house)
        creating = asyncio.create_task(house.create("second"))

        async def has_row() -> bool:
            try:
                await house.sandboxes.get(house.admin, "second")
            except NotFound:
                return creating.done()
            return True

        await until(has_row, "there is a row")
        for _ in range(turns):
            await asyncio.sleep(0)
        await house.sandboxes.destroy(house.admin, "second")
        await asyncio.gather(creating, return_exceptions=True)
        assert traces_of(house.data, clone.sandbox_id) == []
    assert everything_of(slept_in) == []


async def test_a_clone_gets_a_larger_disk_files_and_commands_or_is_gone(slept_in: DataDirectory) -> None:
    outfit = Outfit(
        files=[GuestFile(guest_path="/opt/deep/run", content=b"id -un > /root/ran")], init=["sh /opt/deep/run"]
    )
    async with opened(slept_in, READY) as house, house.sandbox("first") as first:
        larger = (first.disk_mib or 0) + 1024
        clone = await filled(house)
        spec = SandboxSpec(name="second", disk_mib=larger)
        made = (await house.sandboxes.create(house.admin, spec, extras=Extras(outfit=outfit))).sandbox
        try:
            assert (made.id, house.sandboxes.pool.hits["ready"]) == (clone.sandbox_id, 1)
            assert await house.shell(made, "cat /root/ran") == "root"
            size_mib = int(await house.shell(made, "df --output=size -BM / | tail -1 | tr -dc 0-9"))
            assert first.disk_mib is not None
            assert first.disk_mib < size_mib <= larger
        finally:
            await house.sandboxes.destroy(house.admin, made.id)
        clone = await filled(house)
        failing = Extras(outfit=Outfit(init=["echo told; exit 7"]))
        with pytest.raises(InitFailed, match="exited with 7") as failed:
            await house.sandboxes.create(house.admin, SandboxSpec(name="third"), extras=failing)
        assert failed.value.details.endswith("it wrote:\ntold")
        assert house.sandboxes.pool.hits["ready"] == 2
        assert traces_of(house.data, clone.sandbox_id) == []
    assert everything_of(slept_in) == []


def test_clones_of_a_daemon_that_was_killed_are_swept_by_the_next(slept_in: DataDirectory) -> None:
    argv = [sys.executable, "-m", "tests.machines.doomed_sleeper", str(slept_in.root), "", "pool", ""]
    done = subprocess.run(argv, cwd=Path(__file__).parents[2], timeout=DOOMED_S, capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()[-2000:]
    assert len(list(slept_in.machines.iterdir())) == 2, "one being made, or one kept, and a sandbox"

    async def next_daemon() -> None:
        async with opened(slept_in) as house:
            page = await house.sandboxes.list(house.admin, labels={}, limit=10, cursor=None)
            assert [path.name for path in slept_in.machines.iterdir()] == [sandbox.id for sandbox in page.items]
            await house.destroy_all()

    asyncio.run(next_daemon())
    assert everything_of(slept_in) == []


async def test_two_creators_of_one_shape_make_its_template_once(slept_in: DataDirectory) -> None:
    async with opened(slept_in) as house:
        before = set(house.data.snapshots.iterdir())
        try:
            made = await asyncio.gather(*(house.create(name, memory_mib=OTHER_MEMORY_MIB) for name in ("one", "two")))
            (template,) = set(house.data.snapshots.iterdir()) - before
            assert {(await house.look(sandbox)).origin for sandbox in made} == {template.name}
            for sandbox in made:
                assert await house.shell(sandbox, "hostname") == sandbox.spec.name
        finally:
            await house.destroy_all()
    assert everything_of(slept_in) == []


async def test_a_template_is_of_one_agent_kernel_image_and_shape(slept_in: DataDirectory) -> None:
    boot = boot_files()
    elsewhere = Path("/images/other-0123456789abcdef/file")
    shape = Shape(boot=boot, cpus=1, memory_mib=256)
    others = [
        replace(shape, boot=replace(boot, initramfs=elsewhere)),
        replace(shape, boot=replace(boot, kernel=elsewhere)),
        replace(shape, boot=replace(boot, rootfs_sha256="0" * 64)),
        replace(shape, cpus=2),
        replace(shape, memory_mib=512),
    ]
    async with opened(slept_in) as house:
        identify = house.sandboxes.templates.identify
        assert await identify(shape) == await identify(replace(shape))
        assert len({await identify(one) for one in (shape, *others)}) == len(others) + 1


@pytest.mark.parametrize("name", [MEMORY_FULL, STATE])
async def test_a_damaged_template_gives_way_to_another_and_goes_with_what_lies_over_it(
    slept_in: DataDirectory, name: str
) -> None:
    async with opened(slept_in) as house:
        async with house.sandbox("old") as old:
            first = house.data.snapshot((await house.look(old)).origin or "none")
            _flip(first / name)
            async with house.sandbox("new") as new:
                second = (await house.look(new)).origin
                assert second not in (None, first.name)
                assert await house.shell(new, "hostname") == "new"
            stale = {template.id: template.is_stale for template in await house.daemon.templates.list()}
            assert (stale[first.name], stale[second or "none"]) == (True, False)
            assert await house.shell(old, "hostname") == "old"
        await until(lambda: not first.exists(), "the damaged one went with what lay over it")
    async with opened(slept_in) as house, house.sandbox() as dev:
        assert (await house.look(dev)).origin == second


async def test_a_creation_that_is_cancelled_before_its_first_step_leaves_no_clone(slept_in: DataDirectory) -> None:
    async with opened(slept_in, READY) as house, house.sandbox("first"):
        clone = await filled(house)
        boot = await house.daemon.images.boot_files("debian")
        wanted = sized(new_sandbox(house.admin, SandboxSpec(name="second"), boot.rootfs_id, datetime.now(UTC)), boot)
        creation = house.sandboxes.creation
        claimed = await creation.claim(wanted, boot)
        assert claimed == clone
        creating = creation.begin(replace(wanted, id=clone.sandbox_id), boot, claimed=claimed)
        assert await creation.cancel(clone.sandbox_id)
        assert creating.cancelled()
        assert traces_of(house.data, clone.sandbox_id) == []
        with pytest.raises(NotFound):
            await house.sandboxes.get(house.admin, "second")


def _flip(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 1]))


@pytest.fixture
def small(images: None) -> Iterator[DataDirectory]:
    """A data directory on a file system with less room than a machine has memory."""
    with tempfile.TemporaryDirectory(prefix="hearth-small-") as root:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=160m,mode=700", "tmpfs", root], check=True)
        try:
            data = DataDirectory(root=Path(root))
            link_images(data)
            yield data
        finally:
            subprocess.run(["umount", root], check=True)


async def test_without_room_for_a_template_machines_boot_and_without_room_to_sleep_they_stay_up(
    small: DataDirectory,
) -> None:
    async with opened(small) as house, house.sandbox() as dev:
        assert (await house.look(dev)).origin is None
        await house.mark(dev, "kept")
        with pytest.raises(NoSpace, match="no space for a snapshot") as caught:
            await house.sandboxes.sleep.stop(dev.id)
        assert "MiB left" in caught.value.details
        assert (await house.look(dev)).state is SandboxState.RUNNING
        assert list(small.snapshots.iterdir()) == []
        assert await house.marks(dev) == ("kept", "kept")
        await house.mark(dev, "not frozen")


async def test_a_create_that_finds_nothing_ready_says_so_only_in_the_count(slept_in: DataDirectory) -> None:
    async with opened(slept_in) as house:
        async with house.sandbox("first"), house.sandbox("second"):
            assert house.sandboxes.pool.hits == {"miss": 2}
            assert kept(house) == []
        with pytest.raises(HearthError):
            await house.create("bad name")
    assert everything_of(slept_in) == []
