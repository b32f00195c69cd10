"""Sandboxes that sleep and wake on real machines: one owner of every transition, nothing lost, nothing left."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
import pytest_asyncio
from tests.machines.sleepers import VmHouse, opened, start_threads, traces_of, until
from tests.machines.test_first_light import vmms_of

from hearth.config import DataDirectory
from hearth.engine.base import RunState, SnapshotRefused
from hearth.engine.memory_image import read_diff, write_diff
from hearth.engine.qemu.machine import QemuMachine
from hearth.engine.snapshot import load, write_manifest
from hearth.errors import Conflict, GuestFailed, HearthError, NotFound
from hearth.host.memory import total_bytes
from hearth.jobs.bringup import awake
from hearth.model import Heat, SandboxState
from hearth.wire.messages import ExecRequest

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow]

CALLERS = 12
FILL = "fallocate -l $(( $(df --output=avail -B1 /var/tmp | tail -1) * 97 / 100 )) /var/tmp/fill && sync"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(slept_in: DataDirectory) -> AsyncIterator[VmHouse]:
    await start_threads()
    async with opened(slept_in) as house:
        async with house.sandbox("first"):
            """The template is in memory from here on."""
        yield house


async def test_a_sandbox_goes_on_where_it_slept(house: VmHouse) -> None:
    async with house.sandbox() as dev:
        await house.mark(dev, "one")
        await house.shell(dev, "sleep 5000 >/dev/null 2>&1 & echo $! > /dev/shm/pid")

        await house.stop(dev)
        row = await house.look(dev)
        assert (row.state, house.heat(dev), vmms_of(dev.id)) == (SandboxState.STOPPED, Heat.COLD, [])
        assert house.memory(dev).is_dir()

        assert await house.marks(dev) == ("one", "one")
        await house.shell(dev, "kill -0 $(cat /dev/shm/pid)")
        row = await house.look(dev)
        assert (row.state, row.error, house.heat(dev)) == (SandboxState.RUNNING, None, Heat.HOT)
        assert not house.memory(dev).exists()


async def test_twelve_callers_of_a_cold_sandbox_wake_one_machine(house: VmHouse) -> None:
    async with house.sandbox() as dev:
        await house.stop(dev)

        words = [f"caller-{number}" for number in range(CALLERS)]
        answers = await asyncio.gather(*(house.output(dev.id, "echo", word) for word in words))

        assert answers == [(f"{word}\n".encode(), 0) for word in words]
        assert len(vmms_of(dev.id)) == 1
        starts = await house.sandboxes.store.jobs.list(subject=dev.id)
        assert [job.kind for job in starts.items].count("sandbox.start") == 1


async def test_a_command_for_a_paused_sandbox_lets_it_run_on(house: VmHouse) -> None:
    async with house.sandbox() as dev:
        machine = awake(house.member(dev).machine)
        await house.pause(dev)
        assert (house.heat(dev), await machine.run_state()) == (Heat.WARM, RunState.PAUSED)
        assert not await house.sandboxes.sleep.pause(dev.id, idle_only=False), "it is paused already"

        assert await house.output(dev.id, "echo", "again") == (b"again\n", 0)
        assert (house.heat(dev), await machine.run_state()) == (Heat.HOT, RunState.RUNNING)

        await house.pause(dev)
        await house.mark(dev, "warm")
        await house.pause(dev)
        await house.stop(dev)
        assert await house.marks(dev) == ("warm", "warm")


async def test_a_pause_that_nobody_waits_for_to_its_end_leaves_a_sandbox_that_answers(house: VmHouse) -> None:
    async with house.sandbox() as dev:
        machine = awake(house.member(dev).machine)
        pausing = asyncio.create_task(house.sandboxes.sleep.pause(dev.id, idle_only=False))
        for _ in range(3):  # QEMU has been told and has not answered yet
            await asyncio.sleep(0)
        pausing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await pausing
        assert await machine.run_state() is RunState.PAUSED

        async with asyncio.timeout(60):
            assert await house.output(dev.id, "echo", "again") == (b"again\n", 0)


async def test_a_sandbox_with_a_full_disk_is_not_stopped_and_what_runs_in_it_goes_on(house: VmHouse) -> None:
    async with house.sandbox() as dev:
        await house.shell(dev, FILL)
        request = ExecRequest(argv=["/bin/sh", "-c", "echo up; read line; echo $line"])
        async with house.sandboxes.execute(house.admin, dev.id, request) as running:
            assert (await anext(running)).data == b"up\n"
            with pytest.raises(Conflict, match="too full") as caught:
                await house.sandboxes.sleep.stop(dev.id)
            await running.write_stdin(b"still here\n")
            assert (await anext(running)).data == b"still here\n"
        assert "MiB left" in caught.value.details
        assert "delete files" in caught.value.resolution

        assert (await house.look(dev)).state is SandboxState.RUNNING
        assert house.heat(dev) is Heat.HOT
        assert not house.memory(dev).exists()
        await house.shell(dev, "rm /var/tmp/fill && echo room > /var/tmp/room")
        await house.stop(dev)


async def test_whoever_runs_a_command_while_it_is_stopped_is_told(house: VmHouse) -> None:
    async with house.sandbox() as dev:
        request = ExecRequest(argv=["/bin/sh", "-c", "echo up; exec sleep 5000"])
        async with house.sandboxes.execute(house.admin, dev.id, request) as running:
            assert (await anext(running)).data == b"up\n"
            await house.stop(dev)
            with pytest.raises(GuestFailed):
                await anext(running)

        assert await house.output(dev.id, "echo", "well") == (b"well\n", 0)
        await house.shell(dev, "while grep -lsx sleep /proc/[0-9]*/comm; do sleep 0.1; done")


@pytest.mark.parametrize("turns", [1, 40, 400], ids=["at once", "a little later", "later"])
async def test_a_sandbox_destroyed_while_it_is_stopped_or_woken_leaves_nothing(house: VmHouse, turns: int) -> None:
    for cold in (False, True):
        dev = await house.create("dev")
        if cold:
            await house.stop(dev)
        changing = asyncio.create_task(_change(house, dev.id, cold=cold))
        for _ in range(turns):
            await asyncio.sleep(0)
        await house.sandboxes.destroy(house.admin, dev.id)
        outcome = await changing
        assert outcome is None or isinstance(outcome, HearthError)
        assert traces_of(house.data, dev.id) == []
        with pytest.raises(NotFound):
            await house.look(dev)


async def _change(house: VmHouse, sandbox_id: str, *, cold: bool) -> HearthError | None:
    try:
        if cold:
            await house.output(sandbox_id, "true")
        else:
            await house.sandboxes.sleep.stop(sandbox_id)
    except HearthError as error:
        return error
    return None


async def test_a_caller_who_leaves_does_not_stop_a_stop_or_a_wake(house: VmHouse) -> None:
    async with house.sandbox() as dev:
        await house.mark(dev, "kept")
        for cold in (False, True):
            task = asyncio.create_task(_change(house, dev.id, cold=cold))
            await until(lambda: house.resident(dev).lock.locked(), "it began")
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert house.heat(dev) is (Heat.HOT if cold else Heat.COLD)
        assert house.heat(dev) is Heat.HOT
        assert await house.marks(dev) == ("kept", "kept")


async def test_a_guest_that_is_dead_when_it_wakes_is_booted_from_its_disk_which_is_said(house: VmHouse) -> None:
    async with house.sandbox() as dev:
        await house.mark(dev, "old")
        await house.stop(dev)
        blank(house.memory(dev))

        assert await house.marks(dev) == ("-", "old")
        row = await house.look(dev)
        assert row.state is SandboxState.RUNNING
        assert "its memory did not work: it booted from its disk" in (row.error or "")
        assert traces_of(house.data, f"stop-{dev.id}") == []


def blank(snapshot: Path) -> None:
    """Make everything a guest wrote zero, page tables and stacks among it, under right checksums."""
    manifest = load(snapshot).manifest
    memory = snapshot / manifest.memory.file
    with read_diff(memory, manifest.memory_bytes, expected=manifest.files[memory.name]) as diff:
        extents = sorted([*diff.extents, *diff.zeros], key=lambda extent: extent.offset)
    memory.unlink()
    written = write_diff(memory, manifest.memory_bytes, extents, bytes(total_bytes(extents)))
    changed = msgspec.structs.replace(manifest, files={**manifest.files, memory.name: written})
    write_manifest(snapshot, changed)


async def test_a_machine_that_dies_while_it_is_paused_has_failed(house: VmHouse) -> None:
    async with house.sandbox() as dev:
        await house.pause(dev)
        (pid,) = vmms_of(dev.id)
        os.kill(pid, signal.SIGKILL)
        await until(lambda: house.sandboxes.fleet.member(dev.id) is None, "its end was seen")

        async def failed() -> bool:
            return (await house.look(dev)).state is SandboxState.FAILED

        await until(failed, "it is failed")
        with pytest.raises(Conflict, match="--force"):
            await house.output(dev.id, "true")


async def test_a_damaged_memory_is_refused_three_times_and_then_left_alone_until_forced(house: VmHouse) -> None:
    async with house.sandbox() as dev:
        await house.mark(dev, "old")
        await house.stop(dev)
        memory = house.memory(dev) / "memory.diff"
        content = bytearray(memory.read_bytes())
        content[len(content) // 2] ^= 1
        memory.write_bytes(content)

        for _ in range(3):
            with pytest.raises(SnapshotRefused, match="checksum"):
                await house.output(dev.id, "true")
            assert vmms_of(dev.id) == []
            assert (await house.look(dev)).state is SandboxState.STOPPED
        with pytest.raises(Conflict, match="3 attempts failed") as caught:
            await house.output(dev.id, "true")
        assert "--force" in caught.value.resolution

        started = await house.sandboxes.sleep.start(await house.look(dev), force=True)
        assert started.state is SandboxState.RUNNING
        assert await house.marks(dev) == ("-", "old")
        assert not house.memory(dev).exists()
        await house.mark(dev, "new")
        await house.stop(dev)
        assert await house.marks(dev) == ("new", "new"), "it is trusted again"


async def test_forcing_boots_what_does_not_fit_any_more_at_the_first_try(house: VmHouse) -> None:
    async with house.sandbox() as dev:
        await house.mark(dev, "old")
        await house.stop(dev)
        os.utime(house.data.machine(dev.id) / "root.qcow2")

        with pytest.raises(SnapshotRefused, match="disk was written to after"):
            await house.output(dev.id, "true")
        house.resident(dev).failed_starts = 0
        started = await house.sandboxes.sleep.start(await house.look(dev), force=True)
        assert "disk was written to after" in (started.error or "")
        assert await house.marks(dev) == ("-", "old")


async def test_forcing_does_not_throw_away_a_memory_that_works(house: VmHouse) -> None:
    async with house.sandbox() as dev:
        await house.mark(dev, "kept")
        await house.stop(dev)
        await house.sandboxes.sleep.start(await house.look(dev), force=True)
        assert await house.marks(dev) == ("kept", "kept")


async def test_all_who_wait_for_a_wake_that_fails_share_that_one_attempt(house: VmHouse) -> None:
    async with house.sandbox() as dev:
        await house.mark(dev, "old")
        await house.stop(dev)
        disk = house.data.machine(dev.id) / "root.qcow2"
        before = disk.stat()
        os.utime(disk)

        resident = house.resident(dev)
        async with resident.lock:  # until all of them wait
            calls = [asyncio.create_task(house.output(dev.id, "true")) for _ in range(CALLERS)]
            await until(lambda: resident.users >= CALLERS, "all have come")
        told = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(error) for error in told] == [SnapshotRefused] * CALLERS
        assert resident.failed_starts == 1

        os.utime(disk, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert await house.marks(dev) == ("old", "old"), "the next one tries again"


async def test_a_vmm_that_dies_when_its_memory_is_on_disk_loses_nothing(house: VmHouse) -> None:
    async with house.sandbox() as dev:
        await house.mark(dev, "kept")
        await house.shell(dev, "head -c 40000000 /dev/urandom > /dev/shm/much")
        (pid,) = vmms_of(dev.id)
        stopping = asyncio.create_task(house.sandboxes.sleep.stop(dev.id))
        while not house.memory(dev).exists() and not stopping.done():
            await asyncio.sleep(0)
        with contextlib.suppress(ProcessLookupError):  # its time was over by then
            os.kill(pid, signal.SIGKILL)

        stopped = await stopping
        assert stopped is not None
        row = await house.look(dev)
        assert (row.state, row.error, row.exit_cause) == (SandboxState.STOPPED, None, None)
        assert await house.marks(dev) == ("kept", "kept")


async def test_a_copy_that_is_called_off_while_its_source_freezes_leaves_it_running(house: VmHouse) -> None:
    async with house.sandbox() as dev:
        member = house.member(dev)
        machine, connections = member.machine, member.guest._connector._connections
        assert isinstance(machine, QemuMachine)
        forking = asyncio.create_task(house.sandboxes.fork(house.admin, dev.id))
        while not connections and not forking.done():  # the guest was just told to freeze
            await asyncio.sleep(0)
        forking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await forking

        await house.mark(dev, "runs")  # a frozen guest would do so when it thaws by itself, and say that
        assert "nobody thawed" not in machine.console.text()


async def test_rounds_of_sleep_lose_nothing(house: VmHouse) -> None:
    async with house.sandbox() as dev:
        count = "n=$(( $(cat {0} 2>/dev/null || echo 0) + 1 )); echo $n > {0}"
        script = f"{count.format('/dev/shm/n')}; {count.format('/var/tmp/n')}; cat /dev/shm/n /var/tmp/n"
        for number in range(1, 5):
            assert (await house.shell(dev, script)).split() == [str(number)] * 2
            await house.stop(dev)


async def test_a_stop_that_fails_leaves_the_guest_running_and_not_frozen(house: VmHouse) -> None:
    async with house.sandbox() as dev:
        (house.memory(dev)).mkdir()  # what is to be published is in the way
        (house.memory(dev) / "x").touch()
        with pytest.raises(HearthError):
            await house.sandboxes.sleep.stop(dev.id)
        assert house.heat(dev) is Heat.HOT
        assert not await house.is_frozen(dev)
        async with asyncio.timeout(60):
            await house.mark(dev, "runs")
        assert list(house.data.snapshots.glob("*.tmp")) == []
        with contextlib.suppress(FileNotFoundError):
            (house.memory(dev) / "x").unlink()
            house.memory(dev).rmdir()
