"""Provisioned volumes as volumes of users: who may link, what is refused while one is filled, held or gone."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest
from tests.control.test_volumes import ADA, BOB, ROOT, Cellar, on
from tests.disks import LINUX, MIB, disk, ext4, run

from hearth.control.provisioning.links import Links, WantedLink
from hearth.control.users import Users
from hearth.control.vault import Vault
from hearth.control.volumes import WantedVolumes
from hearth.errors import Conflict, Forbidden, InvalidInput, NotFound, QuotaExceeded
from hearth.volume.base import AttachMode, VolumeInUse
from hearth.volume.golden.base import GoldenBackend, GoldenImage, TargetSpec
from hearth.volume.golden.file import FileGoldenVolumes
from hearth.volume.holds import take


class Filler:
    """Says which volumes are being filled, as the provisioner does by its jobs."""

    default_pool = "file"

    def __init__(self, pool: FileGoldenVolumes) -> None:
        self.pools: Mapping[str, GoldenBackend] = {"file": pool}
        self.filling: set[str] = set()

    async def known_as(self, pool: str) -> str:
        return pool

    async def require_settled(self, pool: str, name: str) -> None:
        if name in self.filling:
            raise Conflict("the volume is being made", details=name)


class House(Cellar):
    """A cellar with provisioned volumes."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.root = root
        self.pool = FileGoldenVolumes(root / "golden")
        self.pool.prepare()
        self.filler = Filler(self.pool)
        vault = Vault(root / "master.key", self.store.secrets)
        self.links = Links(
            store=self.store,
            users=Users(self.store, self.clock, vault),
            volumes=self.volumes,
            machines=self.machines,
            links=self.backend,
            clock=self.clock,
        )
        self.links.join(self.filler)

    async def fill(self, name: str, *, replace: bool = False, partitions: int = 1) -> None:
        """Provision a volume of 32 MiB with as many partitions of ext4."""
        content = ext4(self.root / "part", 8, label="x")
        raw = disk(self.root / "disk", 32, [(LINUX, content)] * partitions)
        size = raw.stat().st_size
        image = GoldenImage(path=raw, format="raw", key="0" * 64, size_bytes=size, virtual_size_bytes=size)
        target = await self.pool.create(TargetSpec(name=name, size_bytes=size, job="job"), image)
        target.path.write_bytes(raw.read_bytes())
        await self.pool.publish(target, replace=replace)


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    made = House(tmp_path)
    for user in (ADA, BOB, ROOT):
        await made.store.users.create(user)
    await made.fill("vm")
    yield made


async def test_an_administrator_gives_a_provisioned_volume_to_a_user_who_attaches_it(house: House) -> None:
    with pytest.raises(Forbidden):
        await house.links.link(ADA, WantedLink(name="mine", provisioned="vm"))
    linked = await house.links.link(ROOT, WantedLink(name="disk", provisioned="vm", owner="ada"))
    assert (linked.owner, linked.size_mib) == (ADA.id, 32)
    report = await house.volumes.inspect(ADA, "disk")
    assert (report.provisioned, report.pool) == ("vm", "file")
    with pytest.raises(NotFound):
        await house.volumes.get(BOB, "disk")
    [layout] = [house.backend.layout(linked.id)]
    assert (layout.offset_bytes, layout.size_bytes) == (MIB, 8 * MIB)
    for descriptor in await house.give(await house.sandbox("web"), on("disk")):
        os.close(descriptor)


@pytest.mark.parametrize(
    ("wanted", "error"),
    [
        (WantedLink(name="disk", provisioned="no-such"), NotFound),
        (WantedLink(name="disk", provisioned="../vm"), InvalidInput),
        (WantedLink(name="disk", provisioned="vm", pool="nowhere"), NotFound),
        (WantedLink(name="disk", provisioned="vm", owner="nobody"), NotFound),
        (WantedLink(name="disk", provisioned="vm", partition=2), InvalidInput),
        (WantedLink(name="../disk", provisioned="vm"), InvalidInput),
    ],
)
async def test_what_cannot_be_linked_is_refused_and_leaves_nothing(
    house: House, wanted: WantedLink, error: type[Exception]
) -> None:
    with pytest.raises(error):
        await house.links.link(ROOT, wanted)
    assert (await house.volumes.list(ROOT)).items == []
    assert house.backend.names_of("file", "vm") == []


async def test_it_counts_for_its_owner_and_is_linked_once(house: House) -> None:
    for number in range(3):
        await house.volumes.create(ADA, f"v{number}", 16)
    with pytest.raises(QuotaExceeded):
        await house.links.link(ROOT, WantedLink(name="disk", provisioned="vm", owner="ada"))
    await house.links.link(ROOT, WantedLink(name="disk", provisioned="vm"))
    with pytest.raises(Conflict, match="a volume of somebody already"):
        await house.links.link(ROOT, WantedLink(name="again", provisioned="vm"))


async def test_while_it_is_filled_it_is_neither_linked_nor_attached(house: House) -> None:
    house.filler.filling.add("vm")
    with pytest.raises(Conflict, match="being made"):
        await house.links.link(ROOT, WantedLink(name="disk", provisioned="vm"))
    house.filler.filling.clear()
    await house.links.link(ROOT, WantedLink(name="disk", provisioned="vm", owner="ada"))
    house.filler.filling.add("vm")
    with pytest.raises(Conflict, match="being made"):
        await house.volumes.provide(await house.sandbox("web"), WantedVolumes(existing=[on("disk")]))


async def test_while_a_sandbox_has_it_nobody_changes_it_running_or_not(house: House) -> None:
    await house.links.link(ROOT, WantedLink(name="disk", provisioned="vm", owner="ada"))
    sandbox = await house.sandbox("web")
    descriptors = await house.give(sandbox, on("disk"))
    for _ in ("running", "stopped"):
        with pytest.raises(VolumeInUse, match="web"):
            await house.links.require_detached("file", "vm")
        with pytest.raises(VolumeInUse):
            async with house.links.changing("file", "vm"):
                pytest.fail("it was let in")
        with pytest.raises(VolumeInUse):
            await house.links.require_unlinked("file", "vm")
        while descriptors:
            os.close(descriptors.pop())
    await house.machines.clear(sandbox.id)
    with pytest.raises(Conflict, match="is volume disk"):
        await house.links.require_unlinked("file", "vm")
    await house.volumes.delete(ADA, "disk")
    await house.links.require_unlinked("file", "vm")
    assert (await house.pool.describe("vm")).size_bytes == 32 * MIB, "the link went, the volume stays"


async def test_while_it_changes_nobody_attaches_it_and_then_it_is_looked_at_anew(house: House) -> None:
    linked = await house.links.link(ROOT, WantedLink(name="disk", provisioned="vm", owner="ada"))
    async with house.links.changing("file", "vm"):
        early = await house.sandbox("early")
        with pytest.raises(VolumeInUse):
            await house.give(early, on("disk"))
        await house.store.volumes.displace(early.id, linked.id)
        await house.fill("vm", replace=True, partitions=2)
    late = await house.sandbox("late")
    with pytest.raises(Conflict, match="2 partitions with ext4"):
        await house.give(late, on("disk"))
    await house.store.volumes.displace(late.id, linked.id)
    async with house.links.changing("file", "vm"):
        await house.fill("vm", replace=True)
        await house.pool.grow("vm", 48 * MIB)
    assert (await house.volumes.get(ADA, "disk")).size_mib == 48
    for descriptor in await house.give(late, on("disk")):
        os.close(descriptor)


async def test_a_stranger_that_has_it_open_keeps_it(house: House) -> None:
    await house.links.link(ROOT, WantedLink(name="disk", provisioned="vm", owner="ada"))
    held = os.open((await house.pool.describe("vm")).path, os.O_RDWR | os.O_CLOEXEC)
    try:
        assert take(held, AttachMode.READ_WRITE)
        with pytest.raises(Conflict, match="is in use"):
            await house.volumes.provide(await house.sandbox("web"), WantedVolumes(existing=[on("disk")]))
    finally:
        os.close(held)


async def test_a_file_system_that_was_not_unmounted_is_mended_before_it_is_only_read(house: House) -> None:
    linked = await house.links.link(ROOT, WantedLink(name="disk", provisioned="vm", owner="ada"))
    path = (await house.pool.describe("vm")).path
    run("debugfs", "-w", "-R", "set_super_value state 2", f"{path}?offset={MIB}")  # "errors were found"
    size = path.stat().st_size
    for held in await house.give(await house.sandbox("web"), on("disk", read_only=True)):
        os.close(held)
    assert not await house.backend.check(linked.id), "it has been mended"
    assert path.stat().st_size == size, "and the disk around it is whole"


async def test_it_is_grown_and_copied_where_it_is(house: House) -> None:
    await house.links.link(ROOT, WantedLink(name="disk", provisioned="vm"))
    with pytest.raises(Conflict, match="provisioned grow vm"):
        await house.volumes.resize(ROOT, "disk", 64)
    with pytest.raises(Conflict, match="hearth provision"):
        await house.volumes.clone(ROOT, "disk", "copy")
    assert [each.volume.name for each in (await house.volumes.list(ROOT)).items] == ["disk"]
    assert (await house.volumes.get(ROOT, "disk")).size_mib == 32
