"""What every kind of storage for volumes of golden images has to do, each on the real thing."""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
import struct
import subprocess
from collections.abc import AsyncIterator, Collection, Iterator
from pathlib import Path

import pytest
from tests.libvirtd import Libvirtd
from tests.volume.golden.groups import NO_DEVICE_MAPPER, POOL, has_device_mapper, remove_volumes, volume_group

from hearth.errors import Conflict, InvalidInput, NotFound
from hearth.host.libvirt import Libvirt
from hearth.volume.golden.base import (
    IMAGE_TAG,
    JOB_TAG,
    CannotClone,
    GoldenBackend,
    GoldenImage,
    GoldenVolume,
    Living,
    Target,
    TargetSpec,
)
from hearth.volume.golden.file import FileGoldenVolumes
from hearth.volume.golden.filling import fill
from hearth.volume.golden.libvirt import LibvirtVolumes
from hearth.volume.golden.lvm import Lvm, LvmSettings
from hearth.volume.golden.lvm_making import LvmChoices
from hearth.volume.golden.lvm_thin import THICK, ThinChoice
from hearth.volume.golden.lvm_volumes import LvmGoldenVolumes

MIB = 1 << 20
DISK_MIB, VOLUME_MIB = 16, 24
DATA = b"".join(hashlib.sha256(b"%d" % number).digest() * 1024 for number in range(64)) + bytes(4 * MIB) + b"end"


LIBVIRT = [pytest.param(name, marks=pytest.mark.libvirt) for name in ("libvirt-dir", "libvirt-logical")]


@pytest.fixture(params=["file", "lvm-thick", "lvm-thin", *LIBVIRT])
async def volumes(
    request: pytest.FixtureRequest, tmp_path: Path, lvm_group: LvmSettings | None
) -> AsyncIterator[GoldenBackend]:
    if request.param == "file":
        backend = FileGoldenVolumes(tmp_path / "golden")
        backend.prepare()
        yield backend
    elif request.param == "libvirt-dir":
        (tmp_path / "pool").mkdir()
        server: Libvirtd = request.getfixturevalue("libvirtd")
        with server.pool(tmp_path / "pool") as pool:
            libvirt = Libvirt(server.uri)
            yield LibvirtVolumes(libvirt, pool, tmp_path / "state")
            await libvirt.close()
    elif lvm_group is None:
        pytest.skip(NO_DEVICE_MAPPER)
    elif request.param == "libvirt-logical":
        choices = LvmChoices(home="test", locks=tmp_path, thin=ThinChoice(pool=POOL))
        of_group = {lvm_group.group: LvmGoldenVolumes(Lvm(lvm_group), choices)}
        logical: Libvirtd = request.getfixturevalue("libvirtd")
        with logical.group_pool(lvm_group.group) as pool:
            libvirt = Libvirt(logical.uri)
            yield LibvirtVolumes(libvirt, pool, tmp_path / "state", of_group.__getitem__)
            await libvirt.close()
        remove_volumes(lvm_group)
    else:
        thin = ThinChoice(pool=POOL if request.param == "lvm-thin" else THICK)
        yield LvmGoldenVolumes(Lvm(lvm_group), LvmChoices(home="test", locks=tmp_path, thin=thin))
        remove_volumes(lvm_group)


@pytest.fixture(scope="module")
def lvm_group(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LvmSettings | None]:
    """A group with a thin pool for all tests of this file, each of which leaves it empty; None where none can be."""
    if not has_device_mapper():
        yield None
        return
    with volume_group(tmp_path_factory.mktemp("lvm"), size_mib=1024, has_driver=True, pool_mib=512) as made:
        yield made


@pytest.fixture(params=["qcow2", "raw"])
def image(request: pytest.FixtureRequest, tmp_path: Path) -> GoldenImage:
    return make_image(tmp_path, request.param, DATA)


def make_image(directory: Path, image_format: str, data: bytes) -> GoldenImage:
    raw = directory / "disk.raw"
    raw.write_bytes(data)
    os.truncate(raw, DISK_MIB * MIB)
    path = directory / f"image-{hashlib.sha256(data).hexdigest()[:8]}.{image_format}"
    words = ["qemu-img", "convert", "-f", "raw", "-O", image_format, str(raw), str(path)]
    subprocess.run([*words[:2], *(["-c"] if image_format == "qcow2" else []), *words[2:]], check=True)
    raw.unlink()
    path.chmod(0o444)
    key = hashlib.sha256(path.read_bytes()).hexdigest()
    return GoldenImage(
        path=path, format=image_format, key=key, size_bytes=path.stat().st_size, virtual_size_bytes=DISK_MIB * MIB
    )


def spec(name: str = "golden", size_mib: int = VOLUME_MIB, job: str = "job-1") -> TargetSpec:
    return TargetSpec(name=name, size_bytes=size_mib * MIB, job=job, tags={"owner": "ada"})


def living(*jobs: str) -> Living:
    """Tell of jobs that are not over."""

    async def tell() -> Collection[str]:
        return jobs

    return tell


def ignore(_done: int, _total: int) -> None:
    """Nobody looks."""


async def copied(volumes: GoldenBackend, image: GoldenImage, wanted: TargetSpec) -> Target:
    target = await volumes.create(wanted, image)
    await fill(volumes, image, target, ignore)
    return target


async def cloned(volumes: GoldenBackend, image: GoldenImage, wanted: TargetSpec) -> Target:
    """A clone, or where there are none a copy."""
    if (await volumes.cloning(image.key)).can_clone:
        return await volumes.clone(wanted, image)
    return await copied(volumes, image, wanted)


def contents(volume: GoldenVolume, directory: Path) -> bytes:
    """What a guest would read."""
    if volume.format == "raw":
        return volume.path.read_bytes()
    out = directory / "read.raw"
    words = ["qemu-img", "convert", "-f", volume.format, "-O", "raw", str(volume.path), str(out)]
    subprocess.run(words, check=True)
    return out.read_bytes()


def expected(size_mib: int = VOLUME_MIB, data: bytes = DATA) -> bytes:
    return data + bytes(size_mib * MIB - len(data))


async def test_a_copy_holds_the_image_and_nothing_else(
    volumes: GoldenBackend, image: GoldenImage, tmp_path: Path
) -> None:
    seen: list[tuple[int, int]] = []
    target = await volumes.create(spec(), image)
    assert await volumes.list() == []
    await fill(volumes, image, target, lambda done, total: seen.append((done, total)))
    volume = await volumes.publish(target)
    assert (volume.name, volume.size_bytes, volume.image) == ("golden", VOLUME_MIB * MIB, image.key)
    assert volume.tags == {"owner": "ada", JOB_TAG: "job-1", IMAGE_TAG: image.key}
    assert contents(volume, tmp_path) == expected()
    assert seen[0] == (0, DISK_MIB * MIB)
    assert seen[-1] == (DISK_MIB * MIB, DISK_MIB * MIB)
    assert sorted(seen) == seen
    assert list(await volumes.list()) == [volume]


async def test_a_clone_holds_the_image_too_and_outlives_it(
    volumes: GoldenBackend, image: GoldenImage, tmp_path: Path
) -> None:
    if not (await volumes.cloning(image.key)).can_clone:
        with pytest.raises(CannotClone) as caught:
            await volumes.clone(spec(), image)
        assert caught.value.field == "mode"
        return
    target = await volumes.clone(spec(), image)
    assert target.is_whole
    volume = await volumes.publish(target)
    other = await volumes.publish(await volumes.clone(spec("other"), image))
    image.path.unlink()
    await volumes.sweep(living())
    await volumes.delete("other")
    assert contents(volume, tmp_path) == expected()
    assert other.image == volume.image == image.key


@pytest.mark.parametrize("way", ["create", "clone"])
async def test_a_volume_is_never_smaller_than_its_image(volumes: GoldenBackend, image: GoldenImage, way: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        await getattr(volumes, way)(spec(size_mib=DISK_MIB - 1), image)
    assert caught.value.field == "volume_size_gb"
    assert await volumes.sweep(living()) == []


@pytest.mark.parametrize("name", ["", "..", "-x", "a/b", "../../etc", "a\0b", "snapshot1", "a_tmeta"])
async def test_a_name_that_is_none_reaches_no_storage(volumes: GoldenBackend, image: GoldenImage, name: str) -> None:
    for work in (
        volumes.create(spec(name), image),
        volumes.clone(spec(name), image),
        volumes.describe(name),
        volumes.is_in_use(name),
        volumes.grow(name, MIB),
        volumes.delete(name),
    ):
        with pytest.raises(InvalidInput) as caught:
            await work
        assert caught.value.field == "volume_name"


async def test_what_is_discarded_is_gone_and_what_had_the_name_is_untouched(
    volumes: GoldenBackend, image: GoldenImage, tmp_path: Path
) -> None:
    before = await volumes.publish(await copied(volumes, image, spec()))
    target = await volumes.create(spec(job="job-2"), image)
    await volumes.discard(target)
    await volumes.discard(target)
    assert not target.path.exists()
    assert list(await volumes.list()) == [before]
    assert contents(before, tmp_path) == expected()


async def test_a_name_is_taken_once_and_replaced_when_that_is_wanted(
    volumes: GoldenBackend, image: GoldenImage, tmp_path: Path
) -> None:
    await volumes.publish(await copied(volumes, image, spec()))
    other = make_image(tmp_path, "raw", b"other" * 1000)
    target = await copied(volumes, other, spec(job="job-2"))
    with pytest.raises(Conflict, match="golden") as caught:
        await volumes.publish(target)
    assert caught.value.field == "volume_name"
    volume = await volumes.publish(target, replace=True)
    assert volume.job == "job-2"
    assert contents(volume, tmp_path) == expected(data=b"other" * 1000)
    assert list(await volumes.list()) == [volume]
    assert await volumes.sweep(living()) == []


async def test_what_a_dead_job_was_making_is_swept_and_a_living_ones_is_not(
    volumes: GoldenBackend, image: GoldenImage, tmp_path: Path
) -> None:
    await volumes.create(spec("dead", job="job-dead"), image)
    alive = await volumes.create(spec("living", job="job-living"), image)
    assert list(await volumes.sweep(living("job-living"))) == ["dead"]
    await fill(volumes, image, alive, ignore)
    assert contents(await volumes.publish(alive), tmp_path) == expected()


async def test_what_a_job_begins_while_a_sweep_asks_who_lives_is_not_swept(
    volumes: GoldenBackend, image: GoldenImage, tmp_path: Path
) -> None:
    begun: list[Target] = []

    async def meanwhile() -> Collection[str]:
        before: list[str] = []
        begun.append(await volumes.create(spec("next", job="job-next"), image))
        return before

    await volumes.create(spec("dead", job="job-dead"), image)
    assert list(await volumes.sweep(meanwhile)) == ["dead"]
    await fill(volumes, image, begun[0], ignore)
    assert contents(await volumes.publish(begun[0]), tmp_path) == expected()


async def test_a_volume_grows_with_zeros_and_never_shrinks(
    volumes: GoldenBackend, image: GoldenImage, tmp_path: Path
) -> None:
    for name, target in (
        ("copy", await copied(volumes, image, spec("copy"))),
        ("clone", await cloned(volumes, image, spec("clone"))),
    ):
        await volumes.publish(target)
        grown = await volumes.grow(name, 2 * VOLUME_MIB * MIB)
        assert grown.size_bytes == 2 * VOLUME_MIB * MIB
        assert await volumes.grow(name, 2 * VOLUME_MIB * MIB) == grown
        assert contents(grown, tmp_path) == expected(2 * VOLUME_MIB)
        with pytest.raises(InvalidInput, match="shrink"):
            await volumes.grow(name, VOLUME_MIB * MIB)


async def test_what_somebody_has_open_is_neither_deleted_nor_grown_nor_replaced(
    volumes: GoldenBackend, image: GoldenImage
) -> None:
    volume = await volumes.publish(await copied(volumes, image, spec()))
    target = await copied(volumes, image, spec(job="job-2"))
    descriptor = os.open(volume.path, os.O_RDWR)
    try:
        # As QEMU does it: a shared lock on a byte of its permissions.
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, struct.pack("hhqqi4x", fcntl.F_RDLCK, 0, 101, 1, 0))
        assert await volumes.is_in_use("golden")
        for work in (
            volumes.delete("golden"),
            volumes.grow("golden", 2 * VOLUME_MIB * MIB),
            volumes.publish(target, replace=True),
        ):
            with pytest.raises(Conflict, match="in use"):
                await work
    finally:
        os.close(descriptor)
    assert not await volumes.is_in_use("golden")
    await volumes.delete("golden")
    await volumes.delete("golden")
    assert await volumes.list() == []
    await volumes.discard(target)


async def test_what_is_not_there_is_said_to_be_missing(volumes: GoldenBackend) -> None:
    for work in (volumes.describe("x"), volumes.is_in_use("x"), volumes.grow("x", MIB)):
        with pytest.raises(NotFound, match="'x'"):
            await work


async def test_many_jobs_at_once_do_not_hinder_each_other(
    volumes: GoldenBackend, image: GoldenImage, tmp_path: Path
) -> None:
    async def provision(number: int) -> GoldenVolume:
        wanted = spec(f"golden-{number}", job=f"job-{number}")
        make = cloned if number % 2 else copied
        return await volumes.publish(await make(volumes, image, wanted))

    made = await asyncio.gather(*(provision(number) for number in range(6)))
    assert sorted(volume.name for volume in await volumes.list()) == [f"golden-{number}" for number in range(6)]
    for volume in made:
        assert contents(volume, tmp_path) == expected()
    await asyncio.gather(*(volumes.delete(volume.name) for volume in made))
    assert await volumes.list() == []
