"""Whole jobs that fill volumes of a group, on device-mapper: growing, users' links, disks that lie or fail, a crash."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from tests.control.test_volumes import ADA, ROOT, on
from tests.disks import LINUX, disk, ext4, run
from tests.provisioning.held import tools_of
from tests.provisioning.works import Works, running_works
from tests.volume.golden.groups import (
    NO_DEVICE_MAPPER,
    POOL,
    Faulty,
    faulty_group,
    has_device_mapper,
    lvm_command,
    remove_volumes,
    volume_group,
    watched_pool,
)

from hearth.config import ProvisioningSettings
from hearth.control.provisioning.links import WantedLink
from hearth.control.provisioning.order import ProvisionOrder
from hearth.errors import Conflict, InvalidInput
from hearth.model import JobState
from hearth.volume.base import VolumeInUse
from hearth.volume.golden.lvm import LvmSettings
from hearth.volume.golden.lvm_thin import THICK

pytestmark = [pytest.mark.root, pytest.mark.skipif(not has_device_mapper(), reason=NO_DEVICE_MAPPER)]

MIB = 1 << 20
DISK_MIB, ODD_MIB, GROWN_MIB = 12, 18, 40
DATA_MIB = 8
WAIT_S = 120.0
COPY = """
import asyncio, json, sys
from pathlib import Path
from hearth.volume.golden.base import GoldenImage, TargetSpec
from hearth.volume.golden.lvm import Lvm, LvmSettings
from hearth.volume.golden.lvm_making import LvmChoices
from hearth.volume.golden.lvm_thin import ThinChoice
from hearth.volume.golden.lvm_volumes import LvmGoldenVolumes
from hearth.volume.golden.populate import populate

group, home, image, size = sys.argv[1:]

async def main():
    lock = Path("/run/hearth-volumes") / f"{group}.lock"
    lock.parent.mkdir(mode=0o700, exist_ok=True)
    choices = LvmChoices(home=home, locks=lock.parent, thin=ThinChoice(pool="none"))
    volumes = LvmGoldenVolumes(Lvm(LvmSettings(group=group, lock=lock)), choices)
    count = int(size)
    golden = GoldenImage(path=Path(image), format="raw", key="0" * 64, size_bytes=count, virtual_size_bytes=count)
    target = await volumes.create(TargetSpec(name="vm", size_bytes=count, job="job-of-the-dead"), golden)
    await populate(golden, target, lambda *_: None)

asyncio.run(main())
"""


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A disk with a table and an ext4, and two that hold nothing but bytes."""
    root = tmp_path_factory.mktemp("images")
    disk(root / "parted.raw", DISK_MIB, [(LINUX, ext4(root / "part", 8, label="root"))])
    (root / "x.raw").write_bytes(b"x" * DATA_MIB * MIB)
    (root / "y.raw").write_bytes(b"y" * DATA_MIB * MIB)
    return root


@pytest.fixture(scope="module")
def group(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LvmSettings]:
    directory = tmp_path_factory.mktemp("lvm")
    with volume_group(directory, size_mib=512, has_driver=True, pool_mib=128) as made, watched_pool(made):
        yield made


@pytest.fixture(params=[POOL, THICK])
async def works(
    request: pytest.FixtureRequest, group: LvmSettings, images: Path, tmp_path: Path
) -> AsyncIterator[Works]:
    async with running_works(tmp_path, settings_of(group, images, request.param)) as running:
        yield running
    remove_volumes(group)


@pytest.fixture
def faulty(tmp_path: Path) -> Iterator[tuple[LvmSettings, Faulty]]:
    with faulty_group(tmp_path, size_mib=96) as made:
        yield made


def settings_of(group: LvmSettings, images: Path, pool: str = THICK) -> ProvisioningSettings:
    return ProvisioningSettings(
        lvm_volume_group=group.group, lvm_thin_pool=pool, image_directories=(images,), provision_pool="lvm"
    )


def order(
    images: Path, name: str = "parted", *, size_mib: int = ODD_MIB, grow: str = "table", verify: bool = False
) -> ProvisionOrder:
    return ProvisionOrder(
        image_url=f"file://{images}/{name}.raw",
        image_type="raw",
        volume_name="vm",
        size_bytes=size_mib * MIB,
        pool="lvm",
        grow=grow,
        verify=verify,
    )


def blocks_of(path: Path) -> int:
    """How large the file system in the first partition says that it is."""
    said = run("dumpe2fs", "-h", f"{path}?offset={MIB}")
    told = dict(line.split(":", 1) for line in said.splitlines() if ":" in line)
    return int(told["Block count"]) * int(told["Block size"])


def is_table_at_its_end(path: Path) -> bool:
    done = subprocess.run(["sfdisk", "--verify", path], capture_output=True, text=True, check=False)
    return "not on the end" not in done.stdout + done.stderr


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def volumes_of(group: LvmSettings) -> list[str]:
    said = lvm_command(group.environment, "lvs", "--noheadings", "-o", "lv_name", group.group)
    return sorted(name for name in said.split() if name != POOL)


@pytest.mark.parametrize("grow", ["none", "table", "partition", "filesystem"])
async def test_what_is_on_a_volume_takes_the_room_that_the_volume_got(works: Works, images: Path, grow: str) -> None:
    job = await works.ended(order(images, grow=grow, verify=True))
    assert (job.state, job.error) == (JobState.COMPLETED, None)
    _, volume = await works.provisioner.volume(ROOT, "lvm", "vm")
    assert volume.size_bytes == 20 * MIB, "LVM rounds up to whole extents"
    assert (job.result or {})["grown"] == grow
    assert is_table_at_its_end(volume.path) is (grow != "none")
    [part] = [line.split() for line in run("sfdisk", "-q", "-l", "-o", "Start,Size", volume.path).splitlines()[1:]]
    assert (part[1] == "8M") is (grow in ("none", "table"))
    if grow == "filesystem":
        assert blocks_of(volume.path) > 17 * MIB
    run("e2fsck", "-fn", f"{volume.path}?offset={MIB}")


async def test_a_linked_volume_grows_while_no_sandbox_has_it(works: Works, images: Path) -> None:
    await works.ended(order(images))
    linked = await works.links.link(ROOT, WantedLink(name="tools", provisioned="vm", owner="ada"))
    sandbox = await works.sandbox("web")
    [held] = await works.give(sandbox, on("tools"))
    for work in (
        works.provisioner.grow(ROOT, None, "vm", GROWN_MIB * MIB),
        works.provisioner.delete(ROOT, "lvm", "vm"),
        works.provisioner.submit(ROOT, order(images)),
    ):
        with pytest.raises(VolumeInUse, match="web"):
            await work
    os.close(held)
    await works.machines.clear(sandbox.id)
    await works.store.volumes.displace(sandbox.id, linked.id)

    pool, grown = await works.provisioner.grow(ROOT, None, "vm", GROWN_MIB * MIB, "filesystem")
    assert (pool, grown.size_bytes) == ("lvm", GROWN_MIB * MIB)
    assert blocks_of(grown.path) > (GROWN_MIB - 3) * MIB
    run("e2fsck", "-fn", f"{grown.path}?offset={MIB}")
    assert is_table_at_its_end(grown.path)
    assert (await works.volumes.get(ADA, "tools")).size_mib == GROWN_MIB
    layout = works.backend.layout(linked.id)
    assert (layout.offset_bytes, layout.size_bytes > (GROWN_MIB - 3) * MIB) == (MIB, True)

    run("debugfs", "-w", "-R", "set_super_value state 2", f"{grown.path}?offset={MIB}")  # "errors were found"
    before = grown.path.stat()
    for held in await works.give(sandbox, on("tools", read_only=True)):
        os.close(held)
    assert not await works.backend.check(linked.id), "it has been mended"
    after = grown.path.stat()
    assert (after.st_uid, after.st_gid, after.st_mode) == (before.st_uid, before.st_gid, before.st_mode)
    await works.machines.clear(sandbox.id)
    await works.store.volumes.displace(sandbox.id, linked.id)
    with pytest.raises(InvalidInput, match="shrink"):
        await works.provisioner.grow(ROOT, None, "vm", ODD_MIB * MIB)
    with pytest.raises(Conflict, match="is volume tools"):
        await works.provisioner.delete(ROOT, None, "vm")
    await works.volumes.delete(ADA, "tools")
    await works.provisioner.delete(ROOT, None, "vm")
    assert await works.provisioner.volumes(ROOT) == []


async def test_a_disk_that_loses_what_it_is_given_fails_the_job_and_the_old_volume_stays(
    faulty: tuple[LvmSettings, Faulty], images: Path, tmp_path: Path
) -> None:
    group, device = faulty
    async with running_works(tmp_path, settings_of(group, images)) as works:
        first = await works.ended(order(images, "x", size_mib=DATA_MIB, verify=True))
        assert first.state is JobState.COMPLETED, first.error
        _, before = await works.provisioner.volume(ROOT, None, "vm")
        device.behave(DATA_MIB, "flakey", "{place} 0 3600 1 drop_writes")
        second = await works.ended(order(images, "y", size_mib=DATA_MIB, verify=True))
        assert second.state is JobState.FAILED
        assert second.error is not None
        assert second.error.brief == "the volume does not hold what its image does"
        assert [image.is_spoilt for image in await works.provisioner.cached(ROOT)] == [False, False]
        device.behave()
        assert volumes_of(group) == ["vm"]
        assert (await works.provisioner.volume(ROOT, None, "vm"))[1] == before
        assert digest(before.path) == digest(images / "x.raw")
        third = await works.ended(order(images, "y", size_mib=DATA_MIB, verify=True))
        assert third.state is JobState.COMPLETED, third.error
        assert digest(before.path) == digest(images / "y.raw")


@pytest.mark.parametrize("good_mib", [0, DATA_MIB // 2])
async def test_a_disk_that_fails_while_it_is_written_fails_the_job_and_nothing_is_left(
    faulty: tuple[LvmSettings, Faulty], images: Path, tmp_path: Path, good_mib: int
) -> None:
    group, device = faulty
    async with running_works(tmp_path, settings_of(group, images)) as works:
        device.behave(good_mib, "error", " ")
        job = await works.ended(order(images, "x", size_mib=DATA_MIB))
        device.behave()
        assert job.state is JobState.FAILED
        assert job.error is not None
        assert (await works.provisioner.volumes(ROOT), volumes_of(group)) == ([], []), job.error


async def test_a_daemon_that_is_killed_while_it_copies_leaves_the_old_volume_and_what_the_next_one_removes(
    faulty: tuple[LvmSettings, Faulty], images: Path, tmp_path: Path
) -> None:
    group, device = faulty
    async with running_works(tmp_path, settings_of(group, images)) as works:
        assert (await works.ended(order(images, "y", size_mib=DATA_MIB))).state is JobState.COMPLETED
    home = (tmp_path / "host.id").read_text().strip()
    device.behave(DATA_MIB, "delay", "{place} 0 {place} 2000")
    await asyncio.to_thread(copy_and_die, group, home, images / "x.raw")
    device.behave()  # waits for what is on its way
    assert len(volumes_of(group)) == 2
    async with running_works(tmp_path, settings_of(group, images)) as works, asyncio.timeout(WAIT_S):
        while volumes_of(group) != ["vm"]:
            await asyncio.sleep(0.1)
        _, volume = await works.provisioner.volume(ROOT, None, "vm")
        assert digest(volume.path) == digest(images / "y.raw")


def copy_and_die(group: LvmSettings, home: str, image: Path) -> None:
    """Have a process of its own copy an image, kill that when it has begun, and wait for the last of its children."""
    words = [group.group, home, str(image), str(image.stat().st_size)]
    with subprocess.Popen([sys.executable, "-c", COPY, *words]) as dying:
        deadline_s = time.monotonic() + WAIT_S
        while not tools_of(dying.pid):
            assert dying.poll() is None and time.monotonic() < deadline_s, "it never began to copy"
            time.sleep(0.05)
        dying.send_signal(signal.SIGKILL)
    while "open" in lvm_command(group.environment, "lvs", "--noheadings", "-o", "lv_device_open", group.group):
        assert time.monotonic() < deadline_s, "something goes on copying"
        time.sleep(0.1)
