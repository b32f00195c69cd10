"""Volumes in a group beside what other people do there, on device-mapper: snapshots, look-alikes, devices gone."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.contract.test_golden_backends import MIB, VOLUME_MIB, expected, living, spec
from tests.volume.golden.backends import backend, names, provisioned
from tests.volume.golden.groups import POOL, lvm_command

from hearth.errors import Conflict, NoSpace, NotFound
from hearth.volume.golden.base import GoldenImage
from hearth.volume.golden.homes import Homes
from hearth.volume.golden.lvm import Lvm, LvmSettings
from hearth.volume.golden.lvm_making import LvmChoices
from hearth.volume.golden.lvm_thin import THICK, ThinChoice
from hearth.volume.golden.lvm_volumes import LvmGoldenVolumes


@pytest.mark.parametrize("pool", [THICK, POOL])
async def test_snapshots_that_somebody_made_of_a_volume_outlive_what_is_done_to_it(
    settings: LvmSettings, image: GoldenImage, pool: str
) -> None:
    volumes = backend(settings, pool)
    volume = await provisioned(volumes, image)
    room = ["-L", "8m"] if pool == THICK else ["-kn"]
    words = ("lvcreate", "-qq", "-y", "-s", *room, "-n", "backup", f"{settings.group}/golden")
    lvm_command(settings.environment, *words)
    device = Path("/dev") / settings.group / "backup"
    if pool == THICK:  # it lies over the volume, and LVM would remove it, too
        target = await volumes.create(spec(job="job-2"), image)
        for work in (
            volumes.delete("golden"),
            volumes.grow("golden", 2 * VOLUME_MIB * MIB),
            volumes.publish(target, replace=True),
        ):
            with pytest.raises(Conflict, match="backup"):
                await work
        await volumes.discard(target)
        assert volume.path.read_bytes() == expected()
        lvm_command(settings.environment, "lvremove", "-qq", "-y", f"{settings.group}/backup")
    await volumes.delete("golden")
    if pool == POOL:
        assert device.read_bytes() == expected()
        assert await names(settings) == ["backup"]


async def test_what_imitates_our_names_or_our_tags_alone_is_left_alone(
    settings: LvmSettings, image: GoldenImage
) -> None:
    volumes = backend(settings, POOL)
    tags = ["--addtag", "hearth_job=job-1", "--addtag", "hearth_image=abc"]
    other_home = [*tags, "--addtag", "hearth_home=another", "--addtag", "hearth_name=golden"]
    strangers = {
        "hearth.0123456789ab.new": [],
        "hearth.0123456789ac.gone": [],
        "hearth.0123456789ad.base": ["--addtag", "hearth_home=test"],
        "hearth.0123456789ae.new": other_home,
        "hearth.0123456789af.gone": other_home,
        "hearth.x": other_home,
    }
    for name, tag in strangers.items():
        words = ("lvcreate", "-qq", "-y", "-V", "4m", "--thinpool", POOL, *tag, "-n", name, settings.group)
        lvm_command(settings.environment, *words)
    lvm_command(settings.environment, "lvchange", "-qq", *tags, f"{settings.group}/{POOL}")
    try:
        await volumes.sweep(living())
        await volumes.reclaim()
        assert await names(settings) == sorted(strangers)
        assert await volumes.list() == []
        with pytest.raises(Conflict, match="none of ours"):
            await volumes.delete(POOL)
        with pytest.raises(NotFound):
            await volumes.grow(POOL, 256 * MIB)
        with pytest.raises(Conflict, match="none of ours"):
            await volumes.create(spec(POOL), image)
    finally:
        untag = [word.replace("--addtag", "--deltag") for word in tags]
        lvm_command(settings.environment, "lvchange", "-qq", *untag, f"{settings.group}/{POOL}")


async def test_a_pool_whose_metadata_are_nearly_full_takes_nothing_more(
    settings: LvmSettings, image: GoldenImage
) -> None:
    volumes = backend(settings, POOL, metadata_max_percent=1)
    for work in (volumes.create(spec(), image), volumes.clone(spec(), image)):
        with pytest.raises(NoSpace, match="metadata are"):
            await work
    assert await names(settings) == []


@pytest.mark.parametrize("pool", [THICK, POOL])
async def test_a_volume_that_has_no_device_is_known_by_its_other_name_and_grows(
    settings: LvmSettings, image: GoldenImage, pool: str
) -> None:
    """As a start of the host leaves it, where LVM is told to activate no more than is asked for."""
    seen: list[Path] = []

    async def user_of(path: Path) -> str | None:
        seen.append(path)
        return None

    volume = await provisioned(backend(settings, pool), image, "a-b")
    lvm_command(settings.environment, "lvchange", "-qq", "-an", f"{settings.group}/a-b")
    choices = LvmChoices(home="test", locks=settings.lock.parent, thin=ThinChoice(pool=pool))
    volumes = LvmGoldenVolumes(Lvm(settings), choices, user_of=user_of)
    assert not await volumes.is_in_use("a-b")
    doubled = settings.group.replace("-", "--")
    assert seen == [volume.path, Path(f"/dev/mapper/{doubled}-a--b")]
    grown = await volumes.grow("a-b", 2 * VOLUME_MIB * MIB)
    assert grown.path.read_bytes() == expected(2 * VOLUME_MIB)
    lvm_command(settings.environment, "lvchange", "-qq", "-an", f"{settings.group}/a-b")
    await volumes.delete("a-b")
    assert await names(settings) == []


@pytest.mark.parametrize("pool", [THICK, POOL])
async def test_what_another_daemon_made_is_its_own_while_it_runs_and_goes_without_a_rest_afterwards(
    settings: LvmSettings, image: GoldenImage, tmp_path: Path, pool: str
) -> None:
    homes = {home: Homes(home, tmp_path) for home in ("host-one", "host-other")}
    one, other = (backend(settings, pool, home=home, keeper_of=each.keeper_of) for home, each in homes.items())
    await homes["host-one"].enter()
    volume = await provisioned(one, image)
    half = await one.create(spec("half", job="job-3"), image)
    target = await other.create(spec(job="job-2"), image)
    try:
        for work in (
            other.delete("golden"),
            other.grow("golden", 2 * VOLUME_MIB * MIB),
            other.publish(target, replace=True),
        ):
            with pytest.raises(Conflict, match="host-one, which made it and is running"):
                await work
        assert await other.sweep(living("job-2")) == []
        assert volume.path.read_bytes() == expected()
    finally:
        homes["host-one"].leave()
    await other.publish(target, replace=True)
    assert await other.sweep(living()) == []
    assert await other.reclaim() == (1 if pool == THICK else 0)
    assert await names(settings) == sorted(["golden", half.handle])
    assert await one.sweep(living()) == ["half"]
    assert (await other.describe("golden")).job == "job-2"
