"""Volumes without machines: who may have which, what a crash leaves, and what is done about it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from hearth.config import DataDirectory, Settings
from hearth.control.placing import require_apart
from hearth.control.volumes import NewVolume, Volumes, WantedVolumes
from hearth.engine.local.engine import LocalEngine
from hearth.engine.manifest import VolumeRecord
from hearth.engine.qemu.engine import PLACES
from hearth.errors import Conflict, InvalidInput, NotFound, QuotaExceeded
from hearth.host.clock import SystemClock
from hearth.jobs.bringup import Workshop
from hearth.jobs.volumes import MachineVolumes
from hearth.model import Sandbox, SandboxSpec, SandboxState, User, VolumePlacement, VolumeState
from hearth.network.machine import MachineNetwork
from hearth.quota import Quotas
from hearth.store.memory import MemoryStore
from hearth.volume.base import VolumeInUse, VolumeSpec
from hearth.volume.file import FileVolumes
from hearth.volume.linked import LinkedVolumes
from hearth.volume.locks import Attachments
from hearth.volume.mounting import VolumeRequest

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ADA, BOB = User(id="user-ada", name="ada"), User(id="user-bob", name="bob")
ROOT = User(id="user-root", name="root", admin=True)


class Cellar:
    """Volumes of a data directory, as a daemon with QEMU's places has them, and sandboxes that are rows alone."""

    def __init__(self, root: Path) -> None:
        self.clock = SystemClock()  # those who wait for a lock wait by it
        self.store = MemoryStore(clock=self.clock, quotas=Quotas(volumes=3, volume_mib=128))
        self.disks = root / "volumes" / "disks"
        files = FileVolumes(root / "volumes", clock=self.clock)
        files.prepare()
        self.backend = LinkedVolumes(files, root / "volumes" / "links")
        self.backend.prepare()
        self.attachments = Attachments(root / "volumes" / "attachments", self.backend, clock=self.clock)
        self.attachments.prepare()
        self.machines = MachineVolumes(
            store=self.store.volumes, backend=self.backend, attachments=self.attachments, places=PLACES
        )
        workshop = Workshop(
            data=DataDirectory(root=root),
            settings=Settings(),
            engine=LocalEngine(),
            network=MachineNetwork("0" * 8),
            volumes=self.machines,
            clock=self.clock,
            secret=b"secret",
        )
        self.volumes = Volumes(store=self.store, workshop=workshop)

    async def sandbox(self, name: str, *, owner: User = ADA, state: SandboxState = SandboxState.RUNNING) -> Sandbox:
        made = Sandbox(id=f"sb-{name}", owner=owner.id, spec=SandboxSpec(name=name), state=state, created_at=NOW)
        await self.store.sandboxes.create(made)
        return made

    async def give(self, sandbox: Sandbox, *requests: VolumeRequest) -> list[int]:
        """Do what a bring-up does, and give the descriptors that its VMM would have."""
        placements = await self.volumes.provide(sandbox, WantedVolumes(existing=requests))
        with await self.machines.take(placements) as taken:
            return [os.dup(volume.attachment.descriptor) for volume in taken.volumes]

    def bytes_of(self, volume_id: str) -> bool:
        return (self.disks / volume_id).exists()


@pytest.fixture
async def cellar(tmp_path: Path) -> AsyncIterator[Cellar]:
    made = Cellar(tmp_path)
    for user in (ADA, BOB, ROOT):
        await made.store.users.create(user)
    yield made


def on(name: str, mount: str = "/srv/data", *, read_only: bool = False) -> VolumeRequest:
    return VolumeRequest(name=name, mount=mount, read_only=read_only)


async def test_a_name_is_one_owners_own_and_others_do_not_see_it(cellar: Cellar) -> None:
    mine, theirs = [await cellar.volumes.create(user, "data", 16) for user in (ADA, BOB)]
    assert await cellar.volumes.get(ADA, "data") == mine
    assert await cellar.volumes.get(ROOT, theirs.id) == theirs
    for reference in (theirs.id, "nothing"):
        with pytest.raises(NotFound):
            await cellar.volumes.delete(ADA, reference)
    sandbox = await cellar.sandbox("web")
    placements = await cellar.volumes.provide(sandbox, WantedVolumes(existing=[on("data")]))
    assert [placement.volume_id for placement in placements] == [mine.id]


async def test_a_quota_holds_however_many_ask_at_once(cellar: Cellar) -> None:
    results = await asyncio.gather(
        *(cellar.volumes.create(ADA, f"v{number}", 16) for number in range(6)), return_exceptions=True
    )
    assert sum(isinstance(result, QuotaExceeded) for result in results) == 3
    await cellar.volumes.create(BOB, "data", 128)
    with pytest.raises(QuotaExceeded, match="too large"):
        await cellar.volumes.resize(BOB, "data", 129)
    assert (await cellar.volumes.get(BOB, "data")).size_mib == 128


async def test_a_volume_that_cannot_be_made_leaves_neither_row_nor_bytes(cellar: Cellar) -> None:
    source = await cellar.volumes.create(ADA, "data", 16)
    (cellar.disks / source.id / "disk").unlink()
    with pytest.raises(NotFound):
        await cellar.volumes.clone(ADA, "data", "copy")
    assert [report.volume.name for report in (await cellar.volumes.list(ADA)).items] == ["data"]
    assert sorted(path.name for path in cellar.disks.iterdir()) == [source.id]


async def test_what_a_sandbox_has_is_neither_deleted_nor_changed_and_named_in_words(cellar: Cellar) -> None:
    volume = await cellar.volumes.create(ADA, "data", 16)
    web, other = await cellar.sandbox("web"), await cellar.sandbox("other")
    (descriptor,) = await cellar.give(web, on("data"))
    for work in (
        cellar.volumes.delete(ADA, "data"),
        cellar.volumes.resize(ADA, "data", 32),
        cellar.volumes.clone(ADA, "data", "copy"),
        cellar.volumes.provide(other, WantedVolumes(existing=[on("data")])),
        cellar.volumes.provide(other, WantedVolumes(existing=[on("data", read_only=True)])),
        cellar.volumes.check_wanted(ADA, WantedVolumes(existing=[on("data", read_only=True)])),
    ):
        with pytest.raises(VolumeInUse, match=r"'data' is attached to web \(read-write\)"):
            await work
    with pytest.raises(VolumeInUse):
        await cellar.machines.clear(web.id)
    assert await cellar.store.volumes.in_sandbox(web.id) != [], "its VMM lives"
    os.close(descriptor)
    await cellar.machines.clear(web.id)
    assert cellar.attachments.holders(volume.id) == []
    await cellar.volumes.delete(ADA, "data")
    assert not cellar.bytes_of(volume.id)


async def test_readers_share_and_a_copy_may_be_made_beside_them(cellar: Cellar) -> None:
    volume = await cellar.volumes.create(ADA, "data", 16)
    boxes = [await cellar.sandbox(name) for name in ("a", "b")]
    descriptors = [(await cellar.give(box, on("data", read_only=True)))[0] for box in boxes]
    assert len(cellar.attachments.holders(volume.id)) == 2
    assert (await cellar.volumes.clone(ADA, "data", "copy")).size_mib == 16
    with pytest.raises(VolumeInUse, match="read-only"):
        await cellar.volumes.resize(ADA, "data", 32)
    for descriptor in descriptors:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.write(descriptor, b"x")
        os.close(descriptor)


async def test_volumes_go_into_places_of_their_kind_until_there_are_none(cellar: Cellar) -> None:
    volume = await cellar.volumes.create(ADA, "data", 16)
    sandbox = await cellar.sandbox("web")
    placing, placed = cellar.volumes.placing, list[VolumePlacement]()
    for read_only in (True, False, True, False, False, False):
        placed.append(placing.choose(sandbox, volume, on("data", f"/srv/{len(placed)}", read_only=read_only), placed))
    assert [placement.slot for placement in placed] == [4, 0, 5, 1, 2, 3]
    with pytest.raises(Conflict, match="4 places for writable volumes, all taken"):
        placing.choose(sandbox, volume, on("data"), placed)


@pytest.mark.parametrize("mount", ["/srv/data", "/srv/data/sub", "/srv"])
def test_a_volume_is_not_mounted_on_in_or_around_another(mount: str) -> None:
    other = VolumePlacement(
        sandbox_id="sb-1", volume_id="vol-1", mount="/srv/data", read_only=False, slot=0, attached_at=NOW
    )
    with pytest.raises(Conflict) as refused:
        require_apart(on("data", mount), [other])
    assert refused.value.field == "mount"
    require_apart(on("data", "/srv/data2"), [other])


async def test_what_nobody_could_get_is_refused_before_anything_is_done(cellar: Cellar) -> None:
    await cellar.volumes.create(ADA, "data", 16)
    refused: list[tuple[WantedVolumes, type[Exception]]] = [
        (WantedVolumes(existing=[on("nothing")]), NotFound),
        (WantedVolumes(existing=[on("data", "/proc/x")]), InvalidInput),
        (WantedVolumes(existing=[on("data"), on("data", "/b")]), InvalidInput),
        (
            WantedVolumes(existing=[on("data", "/a")], new=[NewVolume(name="b", size_mib=16, mount="/a/b")]),
            InvalidInput,
        ),
        (WantedVolumes(new=[NewVolume(name="b", size_mib=1, mount="/b")]), InvalidInput),
        (WantedVolumes(new=[NewVolume(name=f"v{n}", size_mib=16, mount=f"/v{n}") for n in range(5)]), InvalidInput),
    ]
    for wanted, kind in refused:
        with pytest.raises(kind):
            await cellar.volumes.check_wanted(ADA, wanted)


async def test_new_volumes_go_with_a_sandbox_that_never_came_up_and_stay_with_one_that_did(cellar: Cellar) -> None:
    wanted = WantedVolumes(new=[NewVolume(name="data", size_mib=16, mount="/srv/data")])
    for comes_up in (False, True):
        sandbox = await cellar.sandbox(f"box-{comes_up}".lower())
        placements = await cellar.volumes.provide(sandbox, wanted)
        assert cellar.bytes_of(placements[0].volume_id)
        if comes_up:
            await cellar.volumes.placing.keep(placements)
        await cellar.machines.clear(sandbox.id)
        assert cellar.bytes_of(placements[0].volume_id) is comes_up
    assert (await cellar.volumes.get(ADA, "data")).state is VolumeState.READY


async def test_of_several_new_volumes_one_that_cannot_be_leaves_none(cellar: Cellar) -> None:
    await cellar.volumes.create(ADA, "taken", 16)
    sandbox = await cellar.sandbox("web")
    new = [NewVolume(name=name, size_mib=16, mount=f"/{name}") for name in ("fresh", "taken")]
    with pytest.raises(Conflict, match="taken"):
        await cellar.volumes.provide(sandbox, WantedVolumes(new=new))
    await cellar.machines.clear(sandbox.id)
    assert [report.volume.name for report in (await cellar.volumes.list(ADA)).items] == ["taken"]


async def test_a_copy_inherits_the_places_of_what_its_source_reads(cellar: Cellar) -> None:
    volume = await cellar.volumes.create(ADA, "data", 16)
    record = VolumeRecord(place=6, volume=volume.id, mount="/srv/d", read_only=True, size_bytes=1, mtime_ns=1)
    await cellar.volumes.create(ADA, "more", 16)
    sandbox = await cellar.sandbox("copy")
    wanted = WantedVolumes(inherited=[record], existing=[on("more", "/srv/more", read_only=True)])
    placed = await cellar.volumes.provide(sandbox, wanted)
    assert [(placement.slot, placement.mount) for placement in placed] == [(6, "/srv/d"), (4, "/srv/more")]
    other = await cellar.sandbox("other")
    with pytest.raises(NotFound):
        await cellar.volumes.provide(
            other, WantedVolumes(inherited=[msgspec.structs.replace(record, volume="vol-gone")])
        )


async def test_after_a_crash_what_was_cut_short_is_finished_or_undone(cellar: Cellar) -> None:
    made = {name: await cellar.volumes.create(ADA, name, 16) for name in ("whole", "deleting", "grown")}
    await cellar.store.volumes.transition(made["deleting"].id, (VolumeState.READY,), VolumeState.DELETING)
    await cellar.backend.resize(made["grown"].id, 32)
    unmade = replace(made["whole"], id="vol-unmade", name="unmade", owner=BOB.id, state=VolumeState.CREATING)
    half = replace(unmade, id="vol-half", name="half")
    for row in (unmade, half):
        await cellar.store.volumes.create(row)
    await cellar.backend.create(VolumeSpec(name=half.id, size_mib=16))
    await cellar.volumes.recover([])
    assert [report.volume.name for report in (await cellar.volumes.list(ADA)).items] == ["whole", "grown"]
    assert (await cellar.volumes.get(ADA, "grown")).size_mib == 32
    assert (await cellar.volumes.list(BOB)).items == []
    assert {path.name for path in cellar.disks.iterdir()} == {made["whole"].id, made["grown"].id}


@pytest.mark.parametrize(
    ("state", "kept"),
    [
        (SandboxState.RUNNING, VolumeState.READY),
        (SandboxState.STOPPED, VolumeState.READY),
        (SandboxState.LOST, VolumeState.READY),
        (SandboxState.CREATING, VolumeState.CREATING),
        (SandboxState.DESTROYING, VolumeState.CREATING),
    ],
)
async def test_a_volume_made_for_a_sandbox_is_kept_once_that_is_there(
    cellar: Cellar, state: SandboxState, kept: VolumeState
) -> None:
    sandbox = await cellar.sandbox("web", state=state)
    wanted = WantedVolumes(new=[NewVolume(name="data", size_mib=16, mount="/srv/data")])
    (placement,) = await cellar.volumes.provide(sandbox, wanted)
    await cellar.volumes.recover([sandbox])
    assert (await cellar.store.volumes.get(placement.volume_id)).state is kept


async def test_records_of_machines_nobody_knows_are_released_once_they_are_dead(cellar: Cellar) -> None:
    volume = await cellar.volumes.create(ADA, "data", 16)
    gone = await cellar.sandbox("gone")
    (descriptor,) = await cellar.give(gone, on("data"))
    await cellar.store.sandboxes.delete(gone.id, (SandboxState.RUNNING,))
    with pytest.raises(VolumeInUse):
        await cellar.volumes.recover([])
    assert [holder.machine for holder in cellar.attachments.holders(volume.id)] == [gone.id]
    os.close(descriptor)
    await cellar.volumes.recover([])
    assert cellar.attachments.holders(volume.id) == []


async def test_without_a_machine_only_what_a_sandbox_has_a_right_to_stays(cellar: Cellar) -> None:
    for name in ("data", "half"):
        await cellar.volumes.create(ADA, name, 16)
    sandbox = await cellar.sandbox("web", state=SandboxState.STOPPED)
    (descriptor,) = await cellar.give(sandbox, on("data"))
    os.close(descriptor)
    placed = await cellar.machines.placements(sandbox.id)
    half = cellar.volumes.placing.choose(sandbox, await cellar.volumes.get(ADA, "half"), on("half", "/half"), placed)
    await cellar.volumes.placing.place(half)
    await cellar.machines.agree(sandbox.id, None)
    assert list(await cellar.machines.placements(sandbox.id)) == list(placed)


async def test_seals_tell_apart_what_was_written_to_since(cellar: Cellar) -> None:
    volume = await cellar.volumes.create(ADA, "data", 16)
    sandbox = await cellar.sandbox("web")
    os.close((await cellar.give(sandbox, on("data")))[0])
    before = (await cellar.machines.sealer(sandbox.id))()
    assert before == (await cellar.machines.sealer(sandbox.id))()
    assert (before[0].volume, before[0].place, before[0].size_bytes) == (volume.id, 0, 16 * 1024 * 1024)
    disk = cellar.disks / volume.id / "disk"
    os.utime(disk, ns=(0, before[0].mtime_ns + 1))
    assert (await cellar.machines.sealer(sandbox.id))() != before
