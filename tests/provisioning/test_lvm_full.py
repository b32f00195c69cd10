"""Thin pools that run out of room for data, or for their own metadata, while a job writes to them; on device-mapper."""

from __future__ import annotations

import asyncio
import fcntl
import os
import struct
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.control.test_volumes import ROOT
from tests.provisioning.test_lvm_jobs import digest, order, settings_of, volumes_of
from tests.provisioning.works import WAIT_S, running_works
from tests.volume.golden.groups import (
    NO_DEVICE_MAPPER,
    POOL,
    has_device_mapper,
    lvm_command,
    volume_group,
    watched_pool,
)

from hearth.control.events import Events
from hearth.control.provisioning.order import ProvisionOrder
from hearth.control.reporting import Reporter
from hearth.errors import Code
from hearth.host.clock import SystemClock
from hearth.model import JobState
from hearth.volume.golden.lvm import LvmSettings

pytestmark = [pytest.mark.root, pytest.mark.skipif(not has_device_mapper(), reason=NO_DEVICE_MAPPER)]

MIB = 1 << 20
POOL_MIB, GUEST_MIB, IMAGE_MIB = 64, 20, 24
DM_TARGET_MSG = 3 << 30 | 312 << 16 | 0xFD << 8 | 14
"""linux/dm-ioctl.h"""
IOCTL = struct.Struct("@3I7IQ128s129s7x")
STRANGERS_FROM, STRANGERS_MOST = 1 << 23, 1 << 16
"""Numbers of thin devices that LVM does not come to, and more than the metadata of such a pool can tell of."""


class Watcher(Reporter):
    """Does something in the moment before the first byte is written, while nobody writes."""

    def __init__(self, act: Callable[[], None]) -> None:
        super().__init__(Events(SystemClock(), run="run"))
        self._act, self._has_acted = act, False

    def work(self, job_id: str, stage: str, percent: float, done: int, total: int) -> None:
        super().work(job_id, stage, percent, done, total)
        if stage == "populating" and not self._has_acted:
            self._has_acted = True
            self._act()


@pytest.fixture
def group(tmp_path: Path) -> Iterator[LvmSettings]:
    (tmp_path / "lvm").mkdir()
    directory = tmp_path / "lvm"
    with volume_group(directory, size_mib=256, has_driver=True, pool_mib=POOL_MIB) as made, watched_pool(made):
        # Else whoever writes waits for a minute, for LVM's watcher to extend the pool.
        lvm_command(made.environment, "lvchange", "-qq", "-y", "--errorwhenfull", "y", f"{made.group}/{POOL}")
        yield made


@pytest.fixture
def images(tmp_path: Path) -> Path:
    root = tmp_path / "images"
    root.mkdir()
    (root / "x.raw").write_bytes(b"x" * IMAGE_MIB * MIB)
    (root / "y.raw").write_bytes(b"y" * MIB)
    return root


@pytest.fixture
def wanted(images: Path) -> ProvisionOrder:
    return order(images, "x", size_mib=IMAGE_MIB)


async def test_a_pool_that_a_guest_fills_while_a_base_is_written_fails_the_job_and_the_daemon_goes_on(
    group: LvmSettings, images: Path, wanted: ProvisionOrder, tmp_path: Path
) -> None:
    words = ("lvcreate", "-qq", "-y", "-V", f"{POOL_MIB}m", "--thinpool", POOL, "-n", "guest", group.group)
    lvm_command(group.environment, *words)
    guest = Path("/dev") / group.group / "guest"

    def write(start_mib: int, end_mib: int) -> None:
        descriptor = os.open(guest, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.pwrite(descriptor, b"g" * (end_mib - start_mib) * MIB, start_mib * MIB)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    write(0, GUEST_MIB)
    filling = Watcher(lambda: write(GUEST_MIB, POOL_MIB - IMAGE_MIB // 2))
    async with running_works(tmp_path, settings_of(group, images, POOL), filling) as works:
        failed = await works.ended(wanted)
        assert failed.state is JobState.FAILED
        assert failed.error is not None
        assert failed.error.code is Code.NO_SPACE, failed.error
        assert volumes_of(group) == ["guest"]
        refused = await works.ended(wanted)
        assert refused.error is not None
        assert (refused.error.code, refused.error.brief) == (Code.NO_SPACE, "the thin pool is nearly full")
        lvm_command(group.environment, "lvremove", "-qq", "-y", f"{group.group}/guest")
        done = await works.ended(wanted)
        assert done.state is JobState.COMPLETED, done.error
        _, volume = await works.provisioner.volume(ROOT, None, "vm")
        assert digest(volume.path) == digest(images / "x.raw")


async def test_a_pool_whose_metadata_run_out_meanwhile_fails_the_job_and_the_rest_goes_once_there_is_room(
    group: LvmSettings, images: Path, wanted: ProvisionOrder, tmp_path: Path
) -> None:
    exhausting = Watcher(lambda: exhaust_metadata(f"{group.group.replace('-', '--')}-{POOL}-tpool"))
    async with running_works(tmp_path, settings_of(group, images, POOL)) as works:
        first = await works.ended(order(images, "y", size_mib=4))
        assert first.state is JobState.COMPLETED, first.error
        await works.provisioner.delete(ROOT, None, "vm")
        [base] = volumes_of(group)
    async with running_works(tmp_path, settings_of(group, images, POOL), exhausting) as works:
        failed = await works.ended(wanted)
        assert failed.state is JobState.FAILED
        assert failed.error is not None
        assert failed.error.code is Code.NO_SPACE, failed.error
        assert await works.provisioner.volumes(ROOT) == []
        refused = await works.ended(wanted)
        assert refused.error is not None
        assert refused.error.code is Code.NO_SPACE, refused.error
        assert set(volumes_of(group)) <= {base, *(name for name in volumes_of(group) if name.endswith(".new"))}
        elsewhere = await works.ended(replace(wanted, pool="file"))
        assert elsewhere.state is JobState.COMPLETED, elsewhere.error
    lvm_command(group.environment, "lvextend", "-qq", "-y", "--poolmetadatasize", "+32m", f"{group.group}/{POOL}")
    async with running_works(tmp_path, settings_of(group, images, POOL)) as works, asyncio.timeout(WAIT_S):
        while any(name.endswith(".new") for name in volumes_of(group)):
            await asyncio.sleep(0.2)
        done = await works.ended(wanted)
        assert done.state is JobState.COMPLETED, done.error
        _, volume = await works.provisioner.volume(ROOT, None, "vm")
        assert digest(volume.path) == digest(images / "x.raw")


def exhaust_metadata(pool: str) -> None:
    """Have a pool make thin devices, each of which takes a block of its metadata, until it has no block left."""
    with Path("/dev/mapper/control").open("rb") as control:
        for number in range(STRANGERS_FROM, STRANGERS_FROM + STRANGERS_MOST):
            message = struct.pack("@Q", 0) + b"create_thin %d\0" % number
            size = IOCTL.size + len(message) + 64
            head = IOCTL.pack(4, 0, 0, size, IOCTL.size, 0, 0, 0, 0, 0, 0, pool.encode(), b"")
            try:
                fcntl.ioctl(control, DM_TARGET_MSG, bytearray(head + message).ljust(size, b"\0"))
            except OSError:
                assert number > STRANGERS_FROM, "none could be made"
                return
    pytest.fail("the metadata did not run out")
