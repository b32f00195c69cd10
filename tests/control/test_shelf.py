"""What the shelf deletes and what it keeps, over small snapshots without machines."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.engine.snapshots import ROOTFS_LAYER, make_stopped, make_template

from hearth.config import DataDirectory, Settings
from hearth.control.images import Images
from hearth.control.shelf import Shelf
from hearth.control.tools import make_volumes
from hearth.engine.local.engine import LocalEngine
from hearth.engine.manifest import Disk, FileRecord, Layer, LayerKind
from hearth.engine.snapshot import DISK, MANIFEST, consume, load, record, stage, write_manifest
from hearth.engine.snapshot import publish as publish_snapshot
from hearth.host.clock import ManualClock
from hearth.image.store import ImageStore, Made
from hearth.jobs.bringup import Workshop
from hearth.model import ImageKind, Sandbox, SandboxSpec, SandboxState, Snapshot, SnapshotState, User
from hearth.network.machine import MachineNetwork
from hearth.store.memory import MemoryStore

ADA = User(id="user-ada", name="ada")
NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Place:
    """A data directory with a shelf, and short words for what lies there."""

    def __init__(self, root: Path) -> None:
        self.data = DataDirectory(root=root)
        self.data.snapshots.mkdir(parents=True)
        self.clock = ManualClock(NOW)
        self.store = MemoryStore(clock=self.clock)
        self.in_use: set[str] = set()
        self.workshop = Workshop(
            data=self.data,
            settings=Settings(min_free_mib=0),
            engine=LocalEngine(),
            network=MachineNetwork("0" * 8),
            volumes=make_volumes(self.data, self.store, LocalEngine(), self.clock),
            clock=self.clock,
            secret=b"secret",
        )
        images = Images(ImageStore(self.data))
        self.shelf = Shelf(store=self.store, workshop=self.workshop, images=images, in_use=lambda: self.in_use)

    def names(self) -> list[str]:
        return sorted(path.name for path in self.data.snapshots.iterdir())

    def template(self, name: str) -> Path:
        return make_template(self.data.snapshots, name)

    def over(self, name: str, *below: str) -> Path:
        """A snapshot whose disk lies over those of others, lowest first."""
        directory = make_template(self.data.snapshots, f"{name}-plain")
        manifest = load(directory).manifest
        layers = [
            Layer(
                kind=LayerKind.SNAPSHOT,
                id=other,
                file=DISK,
                checksum=load(self.data.snapshot(other)).manifest.files[DISK].block_hash,
            )
            for other in below
        ]
        files: dict[str, FileRecord] = manifest.files
        (directory / MANIFEST).unlink()
        staging = stage(self.data.snapshot(name))
        for path in directory.iterdir():
            path.rename(staging / path.name)
            record(staging / path.name)
        directory.rmdir()
        disk = Disk(layers=(ROOTFS_LAYER, *layers), file=DISK)
        made = type(manifest)(
            **{field: getattr(manifest, field) for field in manifest.__struct_fields__}
            | {"id": name, "disk": disk, "files": files}
        )
        write_manifest(staging, made)
        publish_snapshot(staging, self.data.snapshot(name))
        return self.data.snapshot(name)

    async def sandbox(self, name: str, origin: str | None = None) -> Sandbox:
        row = Sandbox(
            id=f"sb-{name}",
            owner=ADA.id,
            spec=SandboxSpec(name=name),
            state=SandboxState.RUNNING,
            created_at=NOW,
            origin=origin,
        )
        await self.store.sandboxes.create(row)
        return row

    async def remove(self, sandbox: Sandbox) -> None:
        await self.store.sandboxes.delete(sandbox.id, (sandbox.state,))

    async def checkpoint(self, name: str, state: SnapshotState, parent: str | None = None) -> Snapshot:
        row = Snapshot(
            id=f"ckp-{name}",
            owner=ADA.id,
            name=name,
            sandbox_id="sb-gone",
            sandbox_name="gone",
            parent=parent,
            created_at=NOW,
            image="debian",
            cpus=1,
            memory_mib=1,
            state=state,
        )
        await self.store.snapshots.create(row)
        return row

    async def checkpoints(self) -> list[str]:
        return [row.id for row in (await self.store.snapshots.list(None)).items]


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    place = Place(tmp_path / "data")
    await place.store.users.create(ADA)
    yield place
    await place.shelf.close()


async def publish_rootfs(place: Place) -> None:
    """Let the image that the small snapshots were made of be there, so that their templates are not stale."""

    async def build(directory: Path) -> Made:
        (directory / "rootfs.ext4").write_text("x")
        return Made(primary="rootfs.ext4", facts={})

    image = await ImageStore(place.data).obtain(ImageKind.ROOTFS, "debian", "key", build, lambda _: None)
    image.directory.rename(place.data.images / ROOTFS_LAYER.id)
    manifest = place.data.images / ROOTFS_LAYER.id / "manifest.json"
    manifest.write_text(manifest.read_text().replace(image.id, ROOTFS_LAYER.id))


async def test_what_a_fork_made_goes_with_the_last_of_its_copies(place: Place) -> None:
    place.template("fork-1")
    one, two = await place.sandbox("one", "fork-1"), await place.sandbox("two", "fork-1")

    assert await place.shelf.sweep() == []
    await place.remove(one)
    assert await place.shelf.sweep() == []
    await place.remove(two)
    assert await place.shelf.sweep() == ["fork-1"]
    assert place.names() == []


async def test_generations_of_forks_go_together_once_nothing_lies_over_the_last(place: Place) -> None:
    place.template("fork-1")
    place.over("fork-2", "fork-1")
    place.over("fork-3", "fork-1", "fork-2")
    last = await place.sandbox("last", "fork-3")

    assert await place.shelf.sweep() == []
    await place.remove(last)
    assert await place.shelf.sweep() == ["fork-3", "fork-2", "fork-1"]


async def test_a_deleted_checkpoint_stays_until_nothing_lies_over_it(place: Place) -> None:
    place.template("ckp-a")
    place.over("fork-1", "ckp-a")
    await place.checkpoint("a", SnapshotState.DELETING)
    copy = await place.sandbox("copy", "fork-1")

    assert await place.shelf.sweep() == []
    assert await place.checkpoints() == ["ckp-a"]
    await place.remove(copy)
    assert await place.shelf.sweep() == ["fork-1", "ckp-a"]
    assert await place.checkpoints() == []


async def test_deleted_checkpoints_are_forgotten_children_before_parents(place: Place) -> None:
    await place.checkpoint("a", SnapshotState.DELETING)
    await place.checkpoint("b", SnapshotState.DELETING, parent="ckp-a")
    await place.checkpoint("c", SnapshotState.READY, parent="ckp-b")
    await place.checkpoint("d", SnapshotState.DELETING, parent="ckp-b")

    await place.shelf.sweep()
    assert sorted(await place.checkpoints()) == ["ckp-a", "ckp-b", "ckp-c"]
    await place.store.snapshots.transition("ckp-c", (SnapshotState.READY,), SnapshotState.DELETING)
    await place.shelf.sweep()
    assert await place.checkpoints() == []


async def test_a_ready_checkpoint_and_what_it_lies_over_stay(place: Place) -> None:
    place.template("fork-1")
    place.over("ckp-a", "fork-1")
    await place.checkpoint("a", SnapshotState.READY)
    assert await place.shelf.sweep() == []


async def test_files_of_a_checkpoint_that_nobody_knows_go(place: Place) -> None:
    place.template("ckp-unknown")
    assert await place.shelf.sweep() == ["ckp-unknown"]


async def test_what_is_held_stays_and_so_does_what_it_needs(place: Place) -> None:
    place.template("fork-1")
    place.over("fork-2", "fork-1")

    async with place.shelf.hold("fork-2"):
        assert place.shelf.is_held("fork-2")
        assert await place.shelf.sweep() == []
    assert not place.shelf.is_held("fork-2")
    assert await place.shelf.sweep() == ["fork-2", "fork-1"]


async def test_what_was_held_at_any_time_during_a_sweep_survives_that_sweep(place: Place) -> None:
    for number in range(3):
        place.template(f"fork-{number}")
    sweeping = asyncio.create_task(place.shelf.sweep())
    await asyncio.sleep(0)  # it has begun and looks at the files now
    with place.shelf.pin("fork-1"):
        """Taken up and let go; what the store says of it by now the sweep may have read before."""

    assert sorted(await sweeping) == ["fork-0", "fork-2"]
    assert await place.shelf.sweep() == ["fork-1"]


async def test_who_comes_while_a_snapshot_goes_waits_and_finds_it_gone(place: Place) -> None:
    place.template("tpl-1")
    removal = asyncio.create_task(place.shelf.remove("tpl-1"))
    await asyncio.sleep(0)
    async with place.shelf.hold("tpl-1"):
        assert removal.done()
        assert place.names() == []


async def test_what_is_not_ours_is_never_deleted(place: Place) -> None:
    place.template("backup-of-mine")
    (place.data.snapshots / "notes.txt").write_text("x")
    await place.shelf.start()
    assert place.names() == ["backup-of-mine", "notes.txt"]


async def test_a_template_that_sandboxes_or_the_pool_need_stays_however_stale(place: Place) -> None:
    place.template("tpl-old")
    sandbox = await place.sandbox("dev", "tpl-old")
    (template,) = await place.shelf.templates()
    assert (template.is_stale, template.is_needed, template.uses) == (True, True, 1)
    assert await place.shelf.needed_by("tpl-old") == ["sandbox dev"]

    assert await place.shelf.sweep() == []
    await place.remove(sandbox)
    place.in_use = {"tpl-old"}
    assert await place.shelf.sweep() == []
    place.in_use = set()
    assert await place.shelf.sweep() == ["tpl-old"]


async def test_a_young_template_stays_and_an_old_one_goes(place: Place) -> None:
    await publish_rootfs(place)
    place.template("tpl-1")
    place.clock = ManualClock(datetime.now(UTC))
    place.shelf = Shelf(
        store=place.store,
        workshop=replace(place.workshop, clock=place.clock),
        images=Images(ImageStore(place.data)),
        in_use=set,
    )
    assert await place.shelf.sweep() == []
    place.clock.advance(8 * 86400)
    assert await place.shelf.sweep() == ["tpl-1"]


async def test_uses_of_a_template_count_copies_of_copies_too(place: Place) -> None:
    place.template("tpl-1")
    place.over("fork-1", "tpl-1")
    await place.sandbox("one", "tpl-1")
    await place.sandbox("two", "fork-1")
    await place.sandbox("three", "fork-1")
    (template,) = await place.shelf.templates()
    assert template.uses == 3


async def test_a_damaged_snapshot_that_is_needed_keeps_everything(place: Place) -> None:
    """It may need any of the others."""
    place.template("fork-1")
    place.template("fork-2")
    (place.data.snapshots / "fork-2" / MANIFEST).write_text("{")
    sandbox = await place.sandbox("dev", "fork-2")
    assert await place.shelf.sweep() == []
    await place.remove(sandbox)
    assert sorted(await place.shelf.sweep()) == ["fork-1", "fork-2"]


async def test_what_is_damaged_and_can_lie_below_nothing_keeps_nothing(place: Place) -> None:
    place.template("fork-1")
    place.template("tpl-1")
    await place.sandbox("living", "tpl-1")
    base = load(place.data.snapshot("tpl-1")).manifest.full_memory
    disk = place.data.root / "root.qcow2"
    disk.write_text("disk")
    make_stopped(place.data.snapshots, "stop-sb-living", base, disk)
    (place.data.snapshots / "stop-sb-living" / MANIFEST).write_text("{")
    (place.data.snapshots / "somebody-elses").mkdir()

    assert await place.shelf.sweep() == ["fork-1"]
    assert place.names() == ["somebody-elses", "stop-sb-living", "tpl-1"]


async def test_a_start_sweeps_what_crashes_have_left(place: Place) -> None:
    living = await place.sandbox("living", "tpl-1")
    place.template("tpl-1")
    base = load(place.data.snapshot("tpl-1")).manifest.full_memory
    disk = place.data.root / "root.qcow2"
    disk.write_text("disk")
    for name in (living.id, "sb-gone", "sb-woken"):
        make_stopped(place.data.snapshots, f"stop-{name}", base, disk)
    consume(place.data.snapshot("stop-sb-woken"))
    stage(place.data.snapshot("fork-torn"))
    place.template("ckp-half")
    await place.checkpoint("half", SnapshotState.CREATING)

    await place.shelf.start()

    assert place.names() == [f"stop-{living.id}", "tpl-1"]
    assert await place.checkpoints() == []


async def test_memory_that_was_used_up_stays_visible_until_the_next_start(place: Place) -> None:
    await place.sandbox("living", "tpl-1")
    place.template("tpl-1")
    base = load(place.data.snapshot("tpl-1")).manifest.full_memory
    disk = place.data.root / "root.qcow2"
    disk.write_text("disk")
    make_stopped(place.data.snapshots, "stop-sb-living", base, disk)
    consume(place.data.snapshot("stop-sb-living"))

    await place.shelf.sweep()
    assert "stop-sb-living.consumed" in place.names()
    await place.shelf.start()
    assert place.names() == ["tpl-1"]


async def test_tidying_sweeps_soon_and_again_for_who_asks_meanwhile(place: Place) -> None:
    place.template("fork-1")
    place.shelf.tidy()
    await asyncio.sleep(0)
    place.template("fork-2")
    place.shelf.tidy()
    async with asyncio.timeout(60):
        while place.names():
            await asyncio.sleep(0.005)


async def test_a_template_that_was_to_go_stays_under_a_sandbox_that_came_up_meanwhile(place: Place) -> None:
    place.template("tpl-1")
    with place.shelf.pin("tpl-1"):
        assert not await place.shelf.remove_unneeded("tpl-1")
        sandbox = await place.sandbox("dev", origin="tpl-1")

    assert not await place.shelf.remove_unneeded("tpl-1")
    assert place.names() == ["tpl-1"]

    await place.remove(sandbox)
    assert await place.shelf.remove_unneeded("tpl-1")
    assert place.names() == []


async def test_whoever_takes_a_template_up_while_it_is_looked_at_keeps_it(place: Place) -> None:
    place.template("tpl-1")
    removing = asyncio.create_task(place.shelf.remove_unneeded("tpl-1"))
    await asyncio.sleep(0)  # it has begun, and waits for the thread that reads
    async with place.shelf.hold("tpl-1"):
        await place.sandbox("dev", origin="tpl-1")

    assert not await removing
    assert place.names() == ["tpl-1"]
