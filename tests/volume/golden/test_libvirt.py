"""Volumes in libvirt's pools: whose they are, who uses them, what a crash leaves; pools that only libvirt reaches."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import struct
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from tests.contract.test_golden_backends import (
    DATA,
    MIB,
    VOLUME_MIB,
    contents,
    copied,
    expected,
    living,
    make_image,
    spec,
)
from tests.libvirtd import Libvirtd, own_libvirtd
from tests.tiny_guest import domain_xml

from hearth.errors import Conflict, HostUnfit
from hearth.host.libvirt import Libvirt, LibvirtUnavailable
from hearth.volume.golden.base import CannotClone, GoldenImage, GoldenVolume
from hearth.volume.golden.domains import disks_of, lies_over
from hearth.volume.golden.filling import fill
from hearth.volume.golden.libvirt import LibvirtVolumes

pytestmark = pytest.mark.libvirt


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "pool").mkdir()
    return tmp_path / "pool"


@pytest.fixture
def pool(libvirtd: Libvirtd, directory: Path) -> Iterator[str]:
    with libvirtd.pool(directory) as name:
        yield name


@pytest.fixture
async def volumes(libvirtd: Libvirtd, pool: str, tmp_path: Path) -> AsyncIterator[LibvirtVolumes]:
    async with opened(libvirtd.uri, pool, tmp_path / "state") as backend:
        yield backend


@pytest.fixture
async def far(libvirtd: Libvirtd, pool: str, tmp_path: Path) -> AsyncIterator[LibvirtVolumes]:
    """The same pool as a libvirt of another host would have it: by its streams alone."""
    async with opened(libvirtd.uri, pool, tmp_path / "state", is_local=False) as backend:
        yield backend


@pytest.fixture
def image(tmp_path: Path) -> GoldenImage:
    return make_image(tmp_path, "qcow2", DATA)


@contextlib.asynccontextmanager
async def opened(
    uri: str, pool: str, state: Path, *, is_local: bool = True, home: str = ""
) -> AsyncIterator[LibvirtVolumes]:
    libvirt = Libvirt(uri)
    libvirt.is_local = is_local
    try:
        yield LibvirtVolumes(libvirt, pool, state, home=home)
    finally:
        await libvirt.close()


def in_libvirt(libvirtd: Libvirtd, pool: str) -> list[str]:
    """What libvirt knows to be in a pool, without looking."""
    with libvirtd.connected() as connection:
        return sorted(connection.storagePoolLookupByName(pool).listVolumes())


def contents_of(directory: Path) -> dict[str, bytes]:
    """The files of a directory with their first bytes."""
    return {path.name: path.read_bytes()[:64] for path in directory.iterdir() if path.is_file()}


def names_in(directory: Path) -> list[str]:
    return [path.name for path in directory.iterdir()]


def is_there(path: Path) -> bool:
    return path.exists()


def lay_over(below: Path, path: Path, image_format: str) -> None:
    words = ("qemu-img", "create", "-q", "-f", "qcow2", "-F", image_format, "-b", str(below), str(path))
    subprocess.run(words, check=True)


def copy_all(source: Path, target: Path) -> None:
    """With attributes and all."""
    subprocess.run(["cp", "-a", str(source), str(target)], check=True)
    assert os.listxattr(target) == os.listxattr(source) != []


async def published(volumes: LibvirtVolumes, image: GoldenImage, name: str = "golden") -> GoldenVolume:
    return await volumes.publish(await copied(volumes, image, spec(name)))


async def cloned(volumes: LibvirtVolumes, image: GoldenImage, name: str = "golden") -> GoldenVolume:
    return await volumes.publish(await volumes.clone(spec(name), image))


async def test_libvirt_sees_what_is_there_and_nothing_else(
    volumes: LibvirtVolumes, libvirtd: Libvirtd, pool: str, image: GoldenImage
) -> None:
    volume = await cloned(volumes, image)
    base = f"hearth-base-{image.key}"
    assert (volume.base, volume.base_format) == (volume.path.parent / base, "qcow2")
    assert in_libvirt(libvirtd, pool) == ["golden", base]
    with libvirtd.connected() as connection:
        seen = connection.storagePoolLookupByName(pool).storageVolLookupByName("golden")
        assert seen.info()[1] == VOLUME_MIB * MIB
        assert f"{base}</path>" in seen.XMLDesc(0)
    await volumes.grow("golden", 2 * VOLUME_MIB * MIB)
    with libvirtd.connected() as connection:
        assert connection.storagePoolLookupByName(pool).storageVolLookupByName("golden").info()[1] == 48 * MIB
    await volumes.delete("golden")
    assert in_libvirt(libvirtd, pool) == []


async def test_what_is_not_marked_as_ours_is_never_touched(
    volumes: LibvirtVolumes, image: GoldenImage, directory: Path
) -> None:
    names = ("foreign", "foreign.0123456789ab.tmp", f"hearth-base-{image.key}")
    for name in names:
        (directory / name).write_bytes(b"somebody's")
    for work in (volumes.create(spec("foreign"), image), volumes.delete("foreign"), volumes.clone(spec(), image)):
        with pytest.raises(Conflict, match="none of ours"):
            await work
    target = await copied(volumes, image, spec("late"))
    (directory / "late").write_bytes(b"somebody's")
    with pytest.raises(Conflict, match="none of ours"):
        await volumes.publish(target, replace=True)
    await volumes.discard(target)
    assert await volumes.list() == []
    assert await volumes.sweep(living()) == []
    assert contents_of(directory) == dict.fromkeys([*names, "late"], b"somebody's")
    (directory / names[1]).unlink()


async def test_a_copy_of_a_volume_is_its_makers(volumes: LibvirtVolumes, image: GoldenImage, directory: Path) -> None:
    volume = await published(volumes, image)
    copy_all(volume.path, directory / "mine")
    assert [each.name for each in await volumes.list()] == ["golden"]
    with pytest.raises(Conflict, match="none of ours"):
        await volumes.delete("mine")


async def test_volumes_are_still_ours_when_hearth_was_installed_anew(
    volumes: LibvirtVolumes, libvirtd: Libvirtd, pool: str, image: GoldenImage, tmp_path: Path
) -> None:
    volume = await cloned(volumes, image)
    shutil.rmtree(tmp_path / "state")
    async with opened(libvirtd.uri, pool, tmp_path / "new-state") as anew:
        assert list(await anew.list()) == [volume]
        await anew.delete("golden")
    assert in_libvirt(libvirtd, pool) == []


async def test_what_a_crash_left_goes_and_libvirt_is_told_late(
    volumes: LibvirtVolumes, libvirtd: Libvirtd, pool: str, image: GoldenImage, directory: Path, tmp_path: Path
) -> None:
    await volumes.create(spec("half"), image)
    await volumes.clone(spec("whole", job="job-2"), image)
    # As if the daemon had died between taking the name and telling libvirt.
    volume = await published(volumes, image)
    volume.path.rename(directory / "elsewhere")
    (tmp_path / "state/refresh").touch()
    assert "golden" in in_libvirt(libvirtd, pool)
    async with opened(libvirtd.uri, pool, tmp_path / "other", home="another daemon's") as other:
        assert await other.sweep(living()) == []
    (tmp_path / "state/refresh").touch()
    assert list(await volumes.sweep(living())) == ["half", "whole"]
    assert in_libvirt(libvirtd, pool) == ["elsewhere"]


@pytest.mark.parametrize(
    ("said", "file"),
    [
        ("base", "base"),
        ("file:base", "base"),
        ('json:{"driver":"qcow2","file":{"driver":"file","filename":"base"}}', "base"),
        ('json:{"file.filename":"base"}', "base"),
        ("json:{", ""),
        ("json:[1]", ""),
        ("json:" + '{"file":' * 40_000, ""),
    ],
)
def test_the_file_below_is_found_however_it_is_named(tmp_path: Path, said: str, file: str) -> None:
    name = said.encode()[:1023]
    header = struct.pack(">4sIQI", b"QFI\xfb", 3, 512, len(name))
    (tmp_path / "over").write_bytes(header.ljust(512, b"\0") + name)
    assert lies_over(str(tmp_path / "over")) == (str(tmp_path / file) if file else "")


@pytest.mark.parametrize("how", ["file", "volume", "over it", "over it in the pool"])
async def test_a_volume_of_a_domain_that_is_shut_off_is_in_use(
    volumes: LibvirtVolumes,
    libvirtd: Libvirtd,
    pool: str,
    image: GoldenImage,
    directory: Path,
    tmp_path: Path,
    how: str,
) -> None:
    volume = await published(volumes, image)
    disk, image_format = volume.path, "raw"
    if how.startswith("over"):
        disk, image_format = (directory if "pool" in how else tmp_path) / "over", "qcow2"
        lay_over(volume.path, disk, "raw")
    xml = domain_xml(f"hearth-test-{pool[-8:]}", disk, image_format, tmp_path / "serial")
    if how == "volume":
        xml = xml.replace("<disk type='file'", "<disk type='volume'")
        xml = xml.replace(f"<source file='{disk}'/>", f"<source pool='{pool}' volume='golden'/>")
    target = await copied(volumes, image, spec(job="job-2"))
    with libvirtd.domain(xml):
        assert await volumes.is_in_use("golden")
        for work in (
            volumes.delete("golden"),
            volumes.grow("golden", 48 * MIB),
            volumes.publish(target, replace=True),
        ):
            with pytest.raises(Conflict, match="in use"):
                await work
    if "pool" in how:
        assert await volumes.is_in_use("golden")  # without a domain it would still be broken
        disk.unlink()
    assert (await volumes.publish(target, replace=True)).job == "job-2"


async def test_an_image_that_somebody_lies_over_stays_when_our_last_clone_goes(
    volumes: LibvirtVolumes, image: GoldenImage, directory: Path
) -> None:
    await cloned(volumes, image)
    base = directory / f"hearth-base-{image.key}"
    lay_over(base, directory / "own", "qcow2")
    await volumes.delete("golden")
    assert base.exists()
    (directory / "own").unlink()
    await volumes.sweep(living())
    assert not base.exists()


async def test_nothing_is_replaced_while_nobody_can_tell_who_uses_it(
    libvirtd: Libvirtd, image: GoldenImage, directory: Path, tmp_path: Path
) -> None:
    with own_libvirtd() as server, Libvirtd(server.uri, server).pool(directory) as pool:
        async with opened(server.uri, pool, tmp_path / "state") as volumes:
            before = await published(volumes, image)
            target = await copied(volumes, make_image(tmp_path, "raw", b"new"), spec(job="job-2"))
            unwanted = await volumes.clone(spec("unwanted"), image)
            server.stop()
            await volumes.discard(unwanted)
            assert not is_there(unwanted.path)
            for work in (volumes.publish(target, replace=True), volumes.delete("golden"), volumes.is_in_use("golden")):
                with pytest.raises(LibvirtUnavailable):
                    await work
            assert contents(before, tmp_path) == expected()
            await asyncio.to_thread(server.start)
            assert (await volumes.publish(target, replace=True)).job == "job-2"


async def test_a_directory_that_is_another_one_for_libvirt_is_refused(image: GoldenImage, tmp_path: Path) -> None:
    with own_libvirtd() as server, Libvirtd(server.uri, server).pool(Path("/var/log")) as pool:
        async with opened(server.uri, pool, tmp_path / "state") as volumes:
            with pytest.raises(HostUnfit, match="not the one libvirt sees"):
                await volumes.create(spec(), image)
    assert not [name for name in names_in(Path("/var/log")) if name.startswith("golden.")]


@pytest.mark.parametrize("image_format", ["qcow2", "raw"])
async def test_a_volume_is_sent_and_holds_its_image(
    far: LibvirtVolumes, libvirtd: Libvirtd, pool: str, tmp_path: Path, image_format: str
) -> None:
    image = make_image(tmp_path, image_format, DATA)
    with pytest.raises(CannotClone):
        await far.clone(spec(), image)
    seen: list[tuple[int, int]] = []
    target = await far.create(spec(), image)
    assert await far.list() == []
    await fill(far, image, target, lambda done, total: seen.append((done, total)))
    volume = await far.publish(target)
    assert (volume.format, volume.size_bytes, volume.is_here) == (image_format, VOLUME_MIB * MIB, False)
    assert contents(volume, tmp_path) == expected()
    assert (seen[0][0], seen[-1][0]) == (0, image.virtual_size_bytes)
    assert sorted(seen) == seen
    assert list(await far.list()) == [volume]
    assert volume.path.stat().st_blocks * 512 < VOLUME_MIB * MIB // 2
    grown = await far.grow("golden", 48 * MIB)
    assert contents(grown, tmp_path) == expected(48)
    await far.delete("golden")
    assert in_libvirt(libvirtd, pool) == []


async def test_a_pool_that_cannot_rename_replaces_nothing_and_touches_nothing_of_others(
    far: LibvirtVolumes, libvirtd: Libvirtd, pool: str, image: GoldenImage, directory: Path
) -> None:
    await published(far, image)
    with pytest.raises(Conflict, match="no way to replace"):
        await far.create(spec(job="job-2"), image)
    (directory / "foreign").write_bytes(b"somebody's")
    with libvirtd.connected() as connection:
        connection.storagePoolLookupByName(pool).refresh()
    for work in (far.create(spec("foreign"), image), far.delete("foreign")):
        with pytest.raises(Conflict, match="none of ours"):
            await work
    await far.create(spec("half", job="dead"), image)
    with pytest.raises(Conflict, match="being made"):
        await far.create(spec("half", job="job-3"), image)
    assert list(await far.sweep(living("job-1"))) == ["half"]
    assert in_libvirt(libvirtd, pool) == ["foreign", "golden"]


async def test_a_sending_that_is_cancelled_leaves_nothing(
    far: LibvirtVolumes, libvirtd: Libvirtd, pool: str, tmp_path: Path
) -> None:
    path = tmp_path / "big.raw"
    with path.open("wb") as file:
        for number in range(256):
            file.write(os.urandom(4096) * 256 if number else bytes(1) * MIB)
    image = GoldenImage(path=path, format="raw", key="0" * 64, size_bytes=256 * MIB, virtual_size_bytes=256 * MIB)
    target = await far.create(spec(size_mib=256), image)
    begun = asyncio.Event()

    def told(done: int, total: int) -> None:
        if 0 < done < total:
            begun.set()

    sending = asyncio.create_task(fill(far, image, target, told))
    await begun.wait()
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    await far.discard(target)
    assert in_libvirt(libvirtd, pool) == []


def test_every_disk_a_domain_names_is_found() -> None:
    found = disks_of("""
<domain><os><loader>/fw/code.fd</loader><nvram template='x'>/fw/vars.fd</nvram></os><devices>
  <disk type='file'><driver type='qcow2'/><source file='/a'/>
    <backingStore type='file'><format type='qcow2'/><source file='/b'/>
      <backingStore type='block'><format type='raw'/><source dev='/dev/c'/><backingStore/></backingStore>
    </backingStore>
    <mirror type='file'><format type='raw'/><source file='/d'/></mirror>
  </disk>
  <disk type='volume'><driver type='raw'/><source pool='p' volume='v'/></disk>
  <disk type='file' device='cdrom'><target dev='hda'/></disk>
  <filesystem type='file'><source file='/e'/></filesystem>
</devices></domain>""")
    assert [(disk.path or f"{disk.pool}/{disk.volume}", disk.format) for disk in found] == [
        *[("/a", "qcow2"), ("/b", "qcow2"), ("/dev/c", "raw"), ("/d", "raw"), ("p/v", "raw")],
        *[("/e", ""), ("/fw/code.fd", ""), ("/fw/vars.fd", "")],
    ]
