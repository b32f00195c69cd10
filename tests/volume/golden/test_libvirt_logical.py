"""A volume group that is a pool of libvirt's, too, on device-mapper: one pool of two names, and a guest that boots."""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from tests.control.test_volumes import ROOT
from tests.libvirtd import Libvirtd
from tests.provisioning.works import Works, running_works
from tests.tiny_guest import domain_xml, write_disk
from tests.volume.golden.groups import (
    NO_DEVICE_MAPPER,
    POOL,
    has_device_mapper,
    remove_volumes,
    volume_group,
    watched_pool,
)

from hearth.config import ProvisioningSettings
from hearth.control.provisioning.order import ProvisionOrder
from hearth.errors import Conflict, NotFound
from hearth.model import JobState
from hearth.volume.golden.lvm import LvmSettings
from hearth.volume.golden.lvm_thin import THICK

pytestmark = [pytest.mark.libvirt, pytest.mark.skipif(not has_device_mapper(), reason=NO_DEVICE_MAPPER)]

MIB = 1 << 20
SIZE_MIB = 8
SAID = "booted from a logical pool"
CONSOLES = Path("/var/log/libvirt/qemu")
WAIT_S = 120.0


@pytest.fixture(scope="module")
def group(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LvmSettings]:
    directory = tmp_path_factory.mktemp("lvm")
    with volume_group(directory, size_mib=256, has_driver=True, pool_mib=128) as made, watched_pool(made):
        yield made
        remove_volumes(made)


@pytest.fixture
def guests(libvirtd: Libvirtd, group: LvmSettings) -> Iterator[str]:
    with libvirtd.group_pool(group.group) as name:
        yield name


@pytest.fixture
def console() -> Iterator[Path]:
    """Where a libvirt may write what a guest says."""
    CONSOLES.mkdir(parents=True, exist_ok=True)
    path = CONSOLES / f"hearth-test-{uuid.uuid4().hex[:8]}.console"
    yield path
    path.unlink(missing_ok=True)


@pytest.fixture
async def works(
    request: pytest.FixtureRequest, libvirtd: Libvirtd, group: LvmSettings, tmp_path: Path
) -> AsyncIterator[Works]:
    write_disk(tmp_path / "guest.raw", SAID, SIZE_MIB * MIB)
    settings = ProvisioningSettings(
        lvm_volume_group=group.group,
        lvm_thin_pool=request.param,
        image_directories=(tmp_path,),
        libvirt_uri=libvirtd.uri,
    )
    async with running_works(tmp_path / "data", settings) as running:
        yield running


def order(directory: Path, name: str, pool: str) -> ProvisionOrder:
    url = f"file://{directory}/guest.raw"
    return ProvisionOrder(image_url=url, image_type="raw", volume_name=name, size_bytes=SIZE_MIB * MIB, pool=pool)


def listed(libvirtd: Libvirtd, pool: str) -> list[str]:
    """What libvirt knows to be in a pool, without looking."""
    with libvirtd.connected() as connection:
        return sorted(connection.storagePoolLookupByName(pool).listVolumes())


@pytest.mark.parametrize("works", [THICK], indirect=True)  # libvirt's pools have no thin volumes in their lists
async def test_a_group_is_one_pool_whichever_of_its_names_is_used(
    works: Works, libvirtd: Libvirtd, guests: str, tmp_path: Path
) -> None:
    assert (await works.ended(order(tmp_path, "one", "lvm"))).state is JobState.COMPLETED
    assert listed(libvirtd, guests) == ["one"], "libvirt was told"
    assert (await works.ended(order(tmp_path, "two", guests))).state is JobState.COMPLETED
    assert listed(libvirtd, guests) == ["one", "two"]
    found = [(pool, volume.name) for pool, volume in await works.provisioner.volumes(ROOT)]
    assert found == [("lvm", "one"), ("lvm", "two")]
    pool, grown = await works.provisioner.grow(ROOT, guests, "one", 2 * SIZE_MIB * MIB)
    assert (pool, grown.size_bytes) == ("lvm", 2 * SIZE_MIB * MIB)
    with libvirtd.connected() as connection:
        assert connection.storagePoolLookupByName(guests).storageVolLookupByName("one").info()[1] == 16 * MIB
    for name in ("one", "two"):
        await works.provisioner.delete(ROOT, guests, name)
    assert listed(libvirtd, guests) == []
    with pytest.raises(NotFound):
        await works.provisioner.volume(ROOT, "lvm", "one")


@pytest.mark.parametrize("works", [POOL], indirect=True)
async def test_a_guest_boots_from_a_volume_and_has_it_for_itself(
    works: Works, libvirtd: Libvirtd, guests: str, console: Path, tmp_path: Path
) -> None:
    job = await works.ended(order(tmp_path, "vm", guests))
    path = Path(str((job.result or {})["volume_path"]))
    name = f"hearth-test-{uuid.uuid4().hex[:8]}"
    with contextlib.ExitStack() as stack:
        domain = stack.enter_context(libvirtd.domain(domain_xml(name, path, "raw", console, is_block=True)))
        await asyncio.to_thread(domain.create)
        await asyncio.to_thread(wait_for, console, SAID.encode())
        await refused(works, tmp_path, guests)
        domain.destroy()
        await refused(works, tmp_path, guests, f"in use by the libvirt domain {name}")
    await works.provisioner.delete(ROOT, guests, "vm")
    assert listed(libvirtd, guests) == []


def wait_for(console: Path, line: bytes) -> None:
    deadline_s = time.monotonic() + WAIT_S
    while line not in (console.read_bytes() if console.exists() else b""):
        assert time.monotonic() < deadline_s, "the guest said nothing"
        time.sleep(0.2)


async def refused(works: Works, directory: Path, pool: str, words: str = "") -> None:
    """See that nothing is done to a volume that a domain has."""
    with pytest.raises(Conflict, match="in use"):
        await works.provisioner.submit(ROOT, order(directory, "vm", "lvm"))
    for work in (
        works.provisioner.delete(ROOT, pool, "vm"),
        works.provisioner.grow(ROOT, "lvm", "vm", 2 * SIZE_MIB * MIB),
    ):
        with pytest.raises(Conflict, match="in use") as caught:
            await work
        assert words in caught.value.details
