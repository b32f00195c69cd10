"""What real machines are given before they are there: a larger disk, files, commands; and that copies keep it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from tests.machines.sleepers import VmHouse, opened, start_threads, traces_of

from hearth.config import DataDirectory
from hearth.control.creation import new_sandbox, sized
from hearth.errors import InvalidInput, QuotaExceeded
from hearth.jobs.bringup import Bringup, Order, Subject
from hearth.model import Sandbox, SandboxSpec
from hearth.outfit import GuestFile, Outfit
from hearth.wire.messages import ExecRequest

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow]

DISK = "df --output=size -BM / | tail -1 | tr -dc 0-9"
BEYOND = "dd if=/dev/urandom of=/far bs=1M count=8 2>/dev/null && fallocate -l {0}M /big && sync && sha256sum /far"
"""Data, and a claim on so much of the disk that what it was before would not have held it."""
OUTFIT = Outfit(
    files=[GuestFile(guest_path="/opt/deep/run", content=b"#!/bin/sh\nid -un >> /root/ran\n", mode="0700")],
    init=["/opt/deep/run", ("touch", "/root/a b")],
)
TOLD = "cat /root/ran; ls /root; stat -c '%a %U' /opt/deep/run"
WANTED = ["root", "a b", "ran", "700 root"]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(slept_in: DataDirectory) -> AsyncIterator[VmHouse]:
    await start_threads()
    async with opened(slept_in) as house:
        async with house.sandbox("first"):
            """The template is in memory from here on."""
        yield house


async def disk_of_image(house: VmHouse) -> int:
    boot = await house.daemon.images.boot_files("debian")
    return boot.rootfs.stat().st_size // (1024 * 1024)


async def disk_mib(house: VmHouse, sandbox: Sandbox) -> int:
    """Tell how large a guest finds its root file system; its tables take a part of it."""
    return int(await house.shell(sandbox, DISK))


async def test_a_larger_disk_stays_as_large_through_sleep_and_copies(house: VmHouse) -> None:
    least = await disk_of_image(house)
    wanted, more = least + 2048, least + 4096
    async with house.sandbox("large", disk_mib=wanted) as large:
        assert (large.disk_mib, (await house.look(large)).disk_mib) == (wanted, wanted)
        grown = await disk_mib(house, large)
        assert 0.95 * wanted < grown <= wanted
        checksum = await house.shell(large, BEYOND.format(least + 512))
        await house.stop(large)
        assert await disk_mib(house, large) == grown
        (copy,) = await house.sandboxes.fork(house.admin, "large", name="copy")
        checkpoint = await house.daemon.checkpoints.create(house.admin, "copy", "kept")
        assert (copy.disk_mib, checkpoint.disk_mib) == (wanted, wanted)
        spec = SandboxSpec(name="larger", disk_mib=more)
        larger = (await house.sandboxes.create(house.admin, spec, from_="kept")).sandbox
        for each, size in ((copy, wanted), (larger, more)):
            assert each.disk_mib == size
            assert 0.95 * size < await disk_mib(house, each) <= size
            assert await house.shell(each, "sha256sum /far") == checksum
        with pytest.raises(InvalidInput) as refused:
            await house.sandboxes.create(house.admin, SandboxSpec(name="less", disk_mib=least), from_="kept")
        assert refused.value.field == "disk_size_mb"
        for each in (copy, larger):
            await house.sandboxes.destroy(house.admin, each.id)
        await house.daemon.checkpoints.delete(house.admin, "kept")


async def test_a_disk_smaller_than_the_image_is_refused(house: VmHouse) -> None:
    least = await disk_of_image(house)
    with pytest.raises(InvalidInput) as refused:
        await house.create("small", disk_mib=least - 1)
    assert refused.value.field == "disk_size_mb"
    async with house.sandbox("equal", disk_mib=least) as equal:
        assert equal.disk_mib == least


async def test_the_size_of_a_disk_counts_whole(house: VmHouse) -> None:
    least = await disk_of_image(house)
    store, owner = house.sandboxes.store, house.admin.id
    has = (await store.quotas.used(owner)).disk_mib
    await store.quotas.set(owner, {"disk_mib": has + least + 100}, unset=frozenset())
    try:
        with pytest.raises(QuotaExceeded):
            await house.create("greedy", disk_mib=least + 101)
        async with house.sandbox("modest", disk_mib=least + 100):
            assert (await store.quotas.used(owner)).disk_mib == has + least + 100
            with pytest.raises(QuotaExceeded):
                await house.sandboxes.fork(house.admin, "modest", name="copy")
    finally:
        await store.quotas.set(owner, {}, unset=frozenset({"disk_mib"}))


async def test_a_machine_that_boots_gets_them_too(house: VmHouse) -> None:
    workshop = house.sandboxes.workshop
    boot = await house.daemon.images.boot_files("debian")
    least = await disk_of_image(house)
    spec = SandboxSpec(name="booted", disk_mib=least + 1024)
    sandbox = sized(new_sandbox(house.admin, spec, boot.rootfs_id, workshop.clock.now()), boot)
    bringup = Bringup(workshop, Order(sandbox=sandbox, boot=boot, outfit=OUTFIT))
    subject = Subject(sandbox_id=sandbox.id)
    steps = bringup.creation().steps
    try:
        for step in steps:
            await step.do(subject)
        request = ExecRequest(argv=["/bin/sh", "-c", f"{DISK}; echo; {TOLD}"], user="root")
        result = await bringup.guest.run(request, timeout_s=60, max_output_bytes=10_000)
        size, *told = result.stdout.decode().splitlines()
        assert least < int(size) <= least + 1024
        assert told == WANTED
    finally:
        for step in reversed(steps):
            await step.undo(subject)
    assert traces_of(house.data, sandbox.id) == []
