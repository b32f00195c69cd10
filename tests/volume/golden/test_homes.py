"""Two daemons of one host in one volume group: what one makes, being made or finished, the other leaves alone.

On a loop device, where LVM keeps its metadata without a kernel that knows device-mapper; nothing is activated.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Collection, Iterator
from pathlib import Path

import pytest
from tests.contract.test_golden_backends import DATA, MIB, living, make_image, spec
from tests.volume.golden.groups import lvm_command, volume_group

from hearth.errors import Conflict
from hearth.host.threads import on_own_thread
from hearth.volume.golden.base import GoldenImage, Target
from hearth.volume.golden.homes import Homes
from hearth.volume.golden.lvm import Lvm, LvmSettings
from hearth.volume.golden.lvm_aside import HOME_TAG, NAME_TAG, Aside, aside_name
from hearth.volume.golden.lvm_making import LvmChoices
from hearth.volume.golden.lvm_thin import THICK, ThinChoice
from hearth.volume.golden.lvm_volumes import LvmGoldenVolumes

KEY = "0123456789abcdef" * 4
ONE, OTHER = "host-000000000001", "host-000000000002"
HOLD = """
import asyncio, sys
from pathlib import Path
from hearth.volume.golden.homes import Homes

async def main():
    await Homes(sys.argv[1], Path(sys.argv[2])).enter()
    print("in", flush=True)
    sys.stdin.read()

asyncio.run(main())
"""


@pytest.fixture(scope="module")
def group(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LvmSettings]:
    with volume_group(tmp_path_factory.mktemp("lvm"), size_mib=128, has_driver=False) as made:
        yield made


@pytest.fixture
async def lvm(group: LvmSettings) -> AsyncIterator[Lvm]:
    made = Lvm(group)
    yield made
    for volume in await made.volumes():
        lvm_command(group.environment, "lvremove", "-qq", "-y", "--driverloaded", "n", f"{group.group}/{volume.name}")


@pytest.fixture
def image(tmp_path: Path) -> GoldenImage:
    return make_image(tmp_path, "raw", DATA)


def storage(lvm: Lvm, homes: Homes, home: str, locks: Path) -> LvmGoldenVolumes:
    choices = LvmChoices(home=home, locks=locks, thin=ThinChoice(pool=THICK), keeper_of=homes.keeper_of)
    return LvmGoldenVolumes(lvm, choices)


def tags(home: str, job: str = "job-1") -> dict[str, str]:
    return {"hearth_job": job, "hearth_image": KEY, NAME_TAG: "golden", HOME_TAG: home}


@pytest.mark.root
async def test_what_another_daemon_was_making_deleted_or_wrote_once_is_left_to_it(lvm: Lvm, tmp_path: Path) -> None:
    names = {kind: aside_name(kind) for kind in (Aside.NEW, Aside.GONE, Aside.BASE)}
    for name in names.values():
        await lvm.create(name, 4 * MIB, tags(ONE))
    other = storage(lvm, Homes(OTHER, tmp_path), OTHER, tmp_path)
    assert await other.sweep(living()) == []
    assert await other.reclaim() == 0
    await other.forget_base(KEY)
    assert {volume.name for volume in await lvm.volumes()} == set(names.values())
    one = storage(lvm, Homes(ONE, tmp_path), ONE, tmp_path)
    assert await one.sweep(living()) == ["golden"]
    assert [volume.name for volume in await lvm.volumes()] == [names[Aside.GONE]]


@pytest.mark.root
async def test_a_finished_volume_is_its_makers_while_that_daemon_runs(
    lvm: Lvm, image: GoldenImage, tmp_path: Path
) -> None:
    await lvm.create("golden", 24 * MIB, tags(ONE))
    made = aside_name(Aside.NEW)
    await lvm.create(made, 24 * MIB, tags(OTHER, "job-2"))
    target = Target(spec=spec(job="job-2"), path=tmp_path, handle=made, is_zero=True)
    one, homes = Homes(ONE, tmp_path), Homes(OTHER, tmp_path)
    other = storage(lvm, homes, OTHER, tmp_path)
    await one.enter()
    try:
        before = await lvm.volumes()
        for work in (
            other.delete("golden"),
            other.grow("golden", 48 * MIB),
            other.publish(target, replace=True),
        ):
            with pytest.raises(Conflict, match=f"data directory {ONE}, which made it and is running"):
                await work
        assert await other.is_in_use("golden")
        assert await lvm.volumes() == before
        assert [volume.name for volume in await other.list()] == ["golden"]
    finally:
        one.leave()
    assert not await other.is_in_use("golden")


@pytest.mark.root
async def test_a_tag_takes_the_place_of_the_one_with_its_key(lvm: Lvm) -> None:
    await lvm.create("golden", 24 * MIB, tags(ONE))
    (before,) = await lvm.volumes()
    await lvm.tag(before, {HOME_TAG: OTHER, NAME_TAG: "golden"})
    (after,) = await lvm.volumes()
    assert after.tags == {*before.tags, f"{HOME_TAG}={OTHER}"} - {f"{HOME_TAG}={ONE}"}


def test_a_home_is_kept_while_its_daemon_lives_however_it_ends(tmp_path: Path) -> None:
    def kept() -> str | None:
        return asyncio.run(Homes(OTHER, tmp_path).keeper_of(ONE))

    assert kept() is None
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, ONE, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as living:
        assert living.stdout is not None
        assert living.stdout.readline() == b"in\n"
        assert ONE in (kept() or "")
        assert kept() is not None, "looking takes nothing away"
        living.kill()
        living.wait()
    assert kept() is None


async def test_those_that_share_our_jobs_keep_nothing_from_us(tmp_path: Path) -> None:
    async def kin() -> Collection[str]:
        return {ONE}

    one = Homes(ONE, tmp_path)
    await one.enter()
    try:
        assert await Homes(OTHER, tmp_path, kin).keeper_of(ONE) is None
        assert await Homes(OTHER, tmp_path).keeper_of(ONE) is not None
        assert await Homes(ONE, tmp_path).keeper_of(ONE) is None, "it is our own"
    finally:
        one.leave()
    assert not await on_own_thread("look", lambda: list(tmp_path.iterdir()))


@pytest.mark.parametrize("home", ["", "../../etc/passwd", "a/b", "x" * 200, "host-\0", "-"])
async def test_what_is_no_home_is_nobodys(home: str, tmp_path: Path) -> None:
    assert await Homes(OTHER, tmp_path).keeper_of(home) is None


async def test_a_daemon_in_a_copied_data_directory_is_refused_while_the_first_one_runs(
    tmp_path: Path,
) -> None:
    first, copy = Homes(ONE, tmp_path), Homes(ONE, tmp_path)
    await first.enter()
    await first.enter()
    with pytest.raises(Conflict, match=ONE) as refusal:
        await copy.enter(wait_s=0.2)
    assert "host.id" in refusal.value.resolution
    first.leave()
    await copy.enter()
    copy.leave()
