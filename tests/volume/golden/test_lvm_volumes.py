"""Volumes in a group, on device-mapper: nobody's bytes in another's volume, and a whole volume after every crash."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest
from tests.contract.test_golden_backends import DISK_MIB, MIB, VOLUME_MIB, expected, ignore, living, make_image, spec
from tests.volume.golden.backends import backend, names, provisioned
from tests.volume.golden.groups import (
    POOL,
    lvm_command,
)

from hearth.errors import Conflict, NoSpace
from hearth.volume.golden.base import GoldenImage
from hearth.volume.golden.lvm import Lvm, LvmSettings
from hearth.volume.golden.lvm_aside import Aside, kind_of
from hearth.volume.golden.lvm_thin import THICK
from hearth.volume.golden.lvm_volumes import LvmGoldenVolumes
from hearth.volume.golden.populate import populate

TENANT = b"somebody's secret"
DIED = 9
"""The status of a process that ended where it was told to."""
PUBLISH = """
import asyncio, json, os, sys
from pathlib import Path
from hearth.volume.golden.base import Target, TargetSpec
from hearth.volume.golden.lvm import Lvm, LvmSettings
from hearth.volume.golden.lvm_making import LvmChoices
from hearth.volume.golden.lvm_thin import ThinChoice
from hearth.volume.golden.lvm_volumes import LvmGoldenVolumes

group, lock, system, pool, handle, size, changes = sys.argv[1:]
left = int(changes)

class Mortal(Lvm):
    async def _change(self, words):
        global left
        if not left:
            os._exit(9)
        left -= 1
        await super()._change(words)

settings = LvmSettings(group=group, lock=Path(lock), environment={"LVM_SYSTEM_DIR": system})
choices = LvmChoices(home="test", locks=Path(lock).parent, thin=ThinChoice(pool=pool))
volumes = LvmGoldenVolumes(Mortal(settings), choices)
spec = TargetSpec(name="golden", size_bytes=int(size), job="job-2")
target = Target(spec=spec, path=Path("/dev") / group / handle, handle=handle, is_zero=False)
asyncio.run(volumes.publish(target, replace=True))
"""


async def written(volumes: LvmGoldenVolumes, image: GoldenImage, job: str) -> None:
    """Make a volume whose first bytes are its job's name."""
    target = await volumes.create(spec(job=job), image)
    target.path.write_bytes(job.encode())
    await volumes.publish(target)


def write_where_volumes_come_to_lie(settings: LvmSettings) -> None:
    """Have a tenant write all over what LVM gives away first, and go."""
    group = settings.group
    lvm_command(settings.environment, "lvcreate", "-qq", "-y", "-L", f"{2 * VOLUME_MIB}m", "-n", "tenant", group)
    device = Path("/dev") / group / "tenant"
    with device.open("r+b", buffering=0) as file:
        block = (TENANT * (MIB // len(TENANT) + 1))[:MIB]
        try:
            while file.write(block):
                pass
        except OSError:
            """The end."""
    lvm_command(settings.environment, "lvremove", "-qq", "-y", f"{group}/tenant")


def read_raw(settings: LvmSettings, size_mib: int) -> bytes:
    """What a volume that nobody wipes finds where it comes to lie."""
    group = settings.group
    words = ("lvcreate", "-qq", "-y", "-Wn", "-Zn", "-L", f"{size_mib}m", "-n", "raw", group)
    lvm_command(settings.environment, *words)
    try:
        return (Path("/dev") / group / "raw").read_bytes()
    finally:
        lvm_command(settings.environment, "lvremove", "-qq", "-y", f"{group}/raw")


async def test_a_thick_volume_has_nothing_of_whoever_was_there_before(
    settings: LvmSettings, image: GoldenImage
) -> None:
    write_where_volumes_come_to_lie(settings)
    assert TENANT in read_raw(settings, VOLUME_MIB)
    volumes = backend(settings, THICK)
    volume = await provisioned(volumes, image)
    assert volume.path.read_bytes() == expected()
    grown = await volumes.grow("golden", 2 * VOLUME_MIB * MIB)
    assert grown.path.read_bytes() == expected(2 * VOLUME_MIB)
    assert await Lvm(settings).volumes() and not (await Lvm(settings).describe("golden")).tag("hearth_grows_from")


async def test_a_deleted_thick_volume_leaves_nothing_to_whoever_comes_next(
    settings: LvmSettings, image: GoldenImage
) -> None:
    volumes = backend(settings, THICK)
    volume = await provisioned(volumes, image)
    volume.path.write_bytes(TENANT * 1000)
    await volumes.delete("golden")
    assert not any(read_raw(settings, VOLUME_MIB))


async def test_growing_that_a_crash_cut_short_shows_nobody_elses_bytes(
    settings: LvmSettings, image: GoldenImage
) -> None:
    write_where_volumes_come_to_lie(settings)
    volumes = backend(settings, THICK)
    volume = await provisioned(volumes, image)
    before = f"{VOLUME_MIB * MIB}"
    lvm_command(
        settings.environment, "lvchange", "-y", "--addtag", f"hearth_grows_from={before}", f"{settings.group}/golden"
    )
    lvm_command(settings.environment, "lvextend", "-qq", "-y", "-L", f"{2 * VOLUME_MIB}m", f"{settings.group}/golden")
    assert TENANT in volume.path.read_bytes()
    assert (await volumes.describe("golden")).size_bytes == VOLUME_MIB * MIB
    assert await volumes.reclaim() == 1
    assert volume.path.read_bytes() == expected(2 * VOLUME_MIB)
    assert (await volumes.describe("golden")).size_bytes == 2 * VOLUME_MIB * MIB


@pytest.mark.parametrize("pool", [THICK, POOL])
async def test_volumes_that_are_none_of_ours_are_never_touched(
    settings: LvmSettings, image: GoldenImage, pool: str
) -> None:
    lvm_command(settings.environment, "lvcreate", "-qq", "-y", "-L", "24m", "-n", "golden", settings.group)
    device = Path("/dev") / settings.group / "golden"
    device.write_bytes(TENANT)
    volumes = backend(settings, pool)
    target = await volumes.create(spec("other"), image)
    assert await volumes.list() == []
    for work in (volumes.create(spec(), image), volumes.delete("golden")):
        with pytest.raises(Conflict, match="none of ours"):
            await work
    renamed = type(target)(
        spec=spec(), path=target.path, handle=target.handle, is_zero=target.is_zero, is_whole=target.is_whole
    )
    with pytest.raises(Conflict, match="none of ours"):
        await volumes.publish(renamed, replace=True)
    await volumes.sweep(living())
    assert await names(settings) == ["golden"]
    assert device.read_bytes().startswith(TENANT)


@pytest.mark.parametrize("pool", [THICK, POOL])
async def test_a_swap_that_dies_anywhere_leaves_the_old_volume_or_the_new_one(
    settings: LvmSettings, image: GoldenImage, pool: str
) -> None:
    volumes = backend(settings, pool)
    await written(volumes, image, "job-1")
    seen = []
    for changes in range(8):
        target = await volumes.create(spec(job="job-2"), image)
        target.path.write_bytes(b"job-2")
        words = [settings.group, str(settings.lock), settings.environment["LVM_SYSTEM_DIR"], pool, target.handle]
        done = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-c", PUBLISH, *words, str(target.spec.size_bytes), str(changes)],
            capture_output=True,
            text=True,
            check=False,
        )
        await volumes.sweep(living())
        await volumes.reclaim()
        volume = await volumes.describe("golden")
        is_new = volume.job == "job-2"
        assert volume.path.read_bytes().startswith(volume.job.encode())
        assert await names(settings) == ["golden"]
        seen.append(is_new)
        if done.returncode == 0:
            break
        assert done.returncode == DIED, done.stderr
        if is_new:
            await volumes.delete("golden")
            await written(volumes, image, "job-1")
    else:
        pytest.fail("it never came to its end")
    assert seen == sorted(seen)
    assert (seen[0], seen[-1], len(seen)) == (False, True, 4)


async def test_a_base_is_written_once_and_goes_with_its_image(settings: LvmSettings, image: GoldenImage) -> None:
    volumes = backend(settings, POOL, cached=[image.key])
    assert not (await volumes.cloning(image.key)).has_base
    written: list[int] = []
    targets = await asyncio.gather(
        *(volumes.clone(spec(f"v{number}"), image, lambda done, _: written.append(done)) for number in range(3))
    )
    made = [await volumes.publish(target) for target in targets]
    assert (written, written[-1]) == (sorted(written), DISK_MIB * MIB)  # a second writer would begin at 0 again
    assert (await volumes.cloning(image.key)).has_base
    kinds = [kind_of(volume) for volume in await Lvm(settings).volumes()]
    assert kinds.count(Aside.BASE) == 1
    await volumes.sweep(living())
    assert [kind_of(volume) for volume in await Lvm(settings).volumes()] == kinds
    await volumes.forget_base("0" * 64)
    assert [kind_of(volume) for volume in await Lvm(settings).volumes()] == kinds
    await volumes.forget_base(image.key)
    assert not (await volumes.cloning(image.key)).has_base
    made.append(await volumes.publish(await volumes.clone(spec("v3"), image)))
    await backend(settings, POOL).sweep(living())
    assert await names(settings) == ["v0", "v1", "v2", "v3"]
    for volume in made:
        assert volume.path.read_bytes() == expected()


async def test_a_pool_that_would_be_filled_refuses_and_is_left_as_it_was(settings: LvmSettings, tmp_path: Path) -> None:
    image = make_image(tmp_path, "raw", b"image" * (DISK_MIB * MIB // 5))
    volumes = backend(settings, POOL)
    lvm_command(
        settings.environment, "lvcreate", "-qq", "-y", "-V", "112m", "--thinpool", POOL, "-n", "guest", settings.group
    )
    (Path("/dev") / settings.group / "guest").write_bytes(b"x" * 104 * MIB)
    for work in (volumes.create(spec(), image), volumes.clone(spec(), image)):
        with pytest.raises(NoSpace, match=f"{DISK_MIB} MiB more"):
            await work
    assert await names(settings) == ["guest"]


async def test_a_pool_that_fills_up_meanwhile_fails_the_job_and_nothing_is_left(
    settings: LvmSettings, tmp_path: Path
) -> None:
    lvm_command(settings.environment, "lvchange", "-qq", "-y", "--errorwhenfull", "y", f"{settings.group}/{POOL}")
    lvm_command(
        settings.environment, "lvcreate", "-qq", "-y", "-V", "120m", "--thinpool", POOL, "-n", "guest", settings.group
    )
    (Path("/dev") / settings.group / "guest").write_bytes(b"x" * 80 * MIB)
    image = make_image(tmp_path, "raw", b"image" * (DISK_MIB * MIB // 5))
    volumes = backend(settings, POOL)
    target = await volumes.create(spec(), image)
    device = Path("/dev") / settings.group / "guest"
    with device.open("r+b", buffering=0) as guest:
        guest.seek(80 * MIB)
        guest.write(b"y" * 38 * MIB)
    with pytest.raises(NoSpace, match="full"):
        await populate(image, target, ignore)
    await volumes.discard(target)
    assert await names(settings) == ["guest"]


async def test_a_volume_that_a_machine_has_is_kept_though_nobody_has_it_open(
    settings: LvmSettings, image: GoldenImage
) -> None:
    await provisioned(backend(settings, POOL), image)
    volumes = backend(settings, POOL, used=True)
    assert await volumes.is_in_use("golden")
    for work in (volumes.delete("golden"), volumes.grow("golden", 2 * VOLUME_MIB * MIB)):
        with pytest.raises(Conflict, match="in use by a domain"):
            await work


async def test_a_full_group_is_said_to_be_and_what_was_deleted_makes_room(
    settings: LvmSettings, image: GoldenImage
) -> None:
    volumes = backend(settings, THICK)
    with pytest.raises(NoSpace):
        await volumes.create(spec(size_mib=1024), image)
    free_mib = (await Lvm(settings).group()).free_bytes // MIB
    target = await volumes.create(spec(size_mib=free_mib - 8), image)
    await volumes.publish(target)
    async with Lvm(settings).alone():
        await Lvm(settings).rename("golden", "hearth.0123456789ab.gone")
    assert (await volumes.create(spec("next"), image)).spec.name == "next"
