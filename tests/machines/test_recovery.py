"""What the next daemon makes of sandboxes that slept, were on their way to or from sleep, or lost their machine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

import pytest
from tests.machines import doomed_sleeper
from tests.machines.sleepers import QUIET, VmHouse, opened, traces_of
from tests.machines.test_first_light import vmms_of

from hearth.config import DataDirectory
from hearth.control.capturing import run_on, take
from hearth.engine.base import RunState, SnapshotRefused
from hearth.engine.snapshot import consume, discard
from hearth.errors import EngineFailed
from hearth.jobs.bringup import awake
from hearth.model import Heat, Sandbox, SandboxState

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

DOOMED_S = 240.0


class Snapshot(StrEnum):
    WHOLE = "whole"
    MISSING = "missing"
    TORN = "torn"
    CONSUMED = "consumed"


class Vmm(StrEnum):
    """While it lives, even silent, it holds the lock of its disk; a dead one's disk is free."""

    RUNNING = "running"
    PAUSED = "paused"
    DEAD = "dead"
    SILENT = "silent"


class Found(StrEnum):
    """What is to come of a cell of the table."""

    HOT = "hot"
    WARM = "warm"
    WAKES = "asleep, and wakes with its memory"
    REFUSED = "asleep, and its memory is refused"
    BOOTS = "asleep, without memory"
    LOST = "lost"
    LATER = "left as it is until its VMM answers"


R, S = SandboxState.RUNNING, SandboxState.STOPPED
TABLE = {
    (R, Snapshot.WHOLE): {Vmm.RUNNING: Found.HOT, Vmm.PAUSED: Found.WARM, Vmm.DEAD: Found.WAKES},
    (R, Snapshot.MISSING): {Vmm.RUNNING: Found.HOT, Vmm.PAUSED: Found.WARM, Vmm.DEAD: Found.LOST},
    (R, Snapshot.TORN): {Vmm.RUNNING: Found.HOT, Vmm.PAUSED: Found.WARM, Vmm.DEAD: Found.REFUSED},
    (R, Snapshot.CONSUMED): {Vmm.RUNNING: Found.HOT, Vmm.PAUSED: Found.WARM, Vmm.DEAD: Found.LOST},
    (S, Snapshot.WHOLE): {Vmm.RUNNING: Found.HOT, Vmm.PAUSED: Found.WAKES, Vmm.DEAD: Found.WAKES},
    (S, Snapshot.MISSING): {Vmm.RUNNING: Found.HOT, Vmm.PAUSED: Found.WARM, Vmm.DEAD: Found.BOOTS},
    (S, Snapshot.TORN): {Vmm.RUNNING: Found.HOT, Vmm.PAUSED: Found.WARM, Vmm.DEAD: Found.REFUSED},
    (S, Snapshot.CONSUMED): {Vmm.RUNNING: Found.HOT, Vmm.PAUSED: Found.WARM, Vmm.DEAD: Found.BOOTS},
}


@dataclass(frozen=True, kw_only=True)
class Cell:
    sandbox: Sandbox
    vmm: Vmm
    found: Found
    pids: list[int]


@pytest.mark.parametrize(("row", "snapshot"), list(TABLE))
async def test_the_next_daemon_finds_out_what_became_of_a_sandbox(
    slept_in: DataDirectory, row: SandboxState, snapshot: Snapshot
) -> None:
    expected = {**TABLE[row, snapshot], Vmm.SILENT: Found.LATER}
    async with opened(slept_in) as house:
        cells = [await _arrange(house, row, snapshot, vmm, found) for vmm, found in expected.items()]
    async with opened(slept_in) as house:
        try:
            for cell in cells:
                await _check(house, row, cell)
        finally:
            await house.destroy_all()
        assert [trace for cell in cells for trace in traces_of(slept_in, cell.sandbox.id)] == []


async def _arrange(house: VmHouse, row: SandboxState, snapshot: Snapshot, vmm: Vmm, found: Found) -> Cell:
    sandbox = await house.create(f"vmm-{vmm}")
    await house.mark(sandbox, vmm)
    member, memory = house.member(sandbox), house.memory(sandbox)
    taken = await take(member, memory, with_disk=False, stay_paused=True)
    match snapshot:
        case Snapshot.MISSING:
            discard(memory)
        case Snapshot.TORN:
            os.truncate(taken.snapshot.memory, taken.snapshot.memory.stat().st_size - 1)
        case Snapshot.CONSUMED:
            consume(memory)
        case Snapshot.WHOLE:
            pass
    pids = vmms_of(sandbox.id)
    if vmm in (Vmm.RUNNING, Vmm.SILENT):
        await run_on(member.guest, awake(member.machine))
    await house.sandboxes.fleet.take(sandbox.id)
    if vmm is Vmm.DEAD:
        await member.machine.kill()
    else:
        await member.machine.release()
    if vmm is Vmm.SILENT:
        os.kill(pids[0], signal.SIGSTOP)
    if row is SandboxState.STOPPED:
        await house.sandboxes.store.sandboxes.transition(sandbox.id, (SandboxState.RUNNING,), row)
    return Cell(sandbox=sandbox, vmm=vmm, found=found, pids=pids)


async def _check(house: VmHouse, row: SandboxState, cell: Cell) -> None:
    sandbox, found = await house.look(cell.sandbox), cell.found
    memory = house.memory(sandbox)
    if found in (Found.HOT, Found.WARM):
        assert (sandbox.state, house.heat(sandbox)) == (SandboxState.RUNNING, Heat(found.value)), cell
        machine = awake(house.member(sandbox).machine)
        assert await machine.run_state() is (RunState.RUNNING if found is Found.HOT else RunState.PAUSED)
        assert not memory.exists()
        await _is_well(house, cell)
        assert vmms_of(sandbox.id) == cell.pids
    elif found is Found.LATER:
        assert (sandbox.state, vmms_of(sandbox.id)) == (row, cell.pids)
        with pytest.raises(EngineFailed, match="does not answer"):
            await house.output(sandbox.id, "true")
        assert vmms_of(sandbox.id) == cell.pids, "no second VMM meets the first on its disk"
        os.kill(cell.pids[0], signal.SIGCONT)
        await _is_well(house, cell)
        assert vmms_of(sandbox.id) == cell.pids
    elif found is Found.LOST:
        assert (sandbox.state, vmms_of(sandbox.id)) == (SandboxState.LOST, [])
        assert sandbox.exit_cause is not None
    else:
        assert (sandbox.state, house.heat(sandbox)) == (SandboxState.STOPPED, Heat.COLD), cell
        assert vmms_of(sandbox.id) == []
        if found is Found.WAKES:
            await _is_well(house, cell)
            assert (await house.look(sandbox)).error is None
        elif found is Found.REFUSED:
            with pytest.raises(SnapshotRefused, match="bytes instead of"):
                await house.output(sandbox.id, "true")


async def _is_well(house: VmHouse, cell: Cell) -> None:
    """It was frozen when its daemon died; now it has its memory and is not, and writes to its disk."""
    assert await house.marks(cell.sandbox) == (cell.vmm, cell.vmm)
    assert not await house.is_frozen(cell.sandbox)
    await house.mark(cell.sandbox, "again")


SCRIPT = "cat /dev/shm/round 2>/dev/null || echo -; cat /var/tmp/round 2>/dev/null || echo -"
LOSES_MEMORY = ("consume", "resume", "identity")
"""From the use of its memory until the next daemon would know its machine, the disk is what counts."""


async def test_a_daemon_killed_at_any_step_of_a_stop_loses_nothing(slept_in: DataDirectory) -> None:
    await _rounds(slept_in, "stop", list(doomed_sleeper.STOP), loses=())


async def test_a_daemon_killed_at_any_step_of_a_start_never_brings_old_memory_to_a_newer_disk(
    slept_in: DataDirectory,
) -> None:
    await _rounds(slept_in, "start", list(doomed_sleeper.START), loses=LOSES_MEMORY)


async def _rounds(data: DataDirectory, work: str, steps: list[str], *, loses: tuple[str, ...]) -> None:
    """Count in the guest, on its disk and in its memory, while one daemon after the other is killed."""
    async with opened(data) as house:
        sandbox = await house.create("counter")
    try:
        for number, step in enumerate(steps):
            async with opened(data) as house:
                await house.shell(sandbox, f"echo {number} | tee /dev/shm/round > /var/tmp/round")
                if work == "start":
                    await house.stop(sandbox)
            _killed(data, sandbox, work, step)
            async with opened(data) as house:
                assert len(vmms_of(sandbox.id)) <= 1, step
                memory, disk = (await house.shell(sandbox, SCRIPT)).split()
                assert not await house.is_frozen(sandbox), step
                assert (disk, memory) == (str(number), "-" if step in loses else str(number)), step
                assert bool((await house.look(sandbox)).error) == (step in loses), step
                await house.shell(sandbox, "echo thawed > /var/tmp/thawed; sync")
                assert len(vmms_of(sandbox.id)) == 1, step
                assert list(data.snapshots.glob("*.tmp")) + list(data.snapshots.glob("stop-*")) == [], step
    finally:
        async with opened(data) as house:
            await house.destroy_all()
    assert traces_of(data, sandbox.id) == []


def _killed(data: DataDirectory, sandbox: Sandbox, work: str, step: str) -> None:
    argv = [sys.executable, "-m", "tests.machines.doomed_sleeper", str(data.root), sandbox.id, work, step]
    done = subprocess.run(argv, cwd=Path(__file__).parents[2], timeout=DOOMED_S, capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, f"{step}: {done.returncode}: {done.stderr.decode()[-2000:]}"


async def test_a_daemon_that_ends_leaves_hot_and_warm_machines_to_the_next(slept_in: DataDirectory) -> None:
    async with opened(slept_in) as house:
        hot, warm = await house.create("hot"), await house.create("warm")
        for sandbox in (hot, warm):
            await house.mark(sandbox, sandbox.spec.name)
        await house.pause(warm)
        pids = {sandbox.id: vmms_of(sandbox.id) for sandbox in (hot, warm)}

    async with opened(slept_in) as house:
        try:
            assert (house.heat(hot), house.heat(warm)) == (Heat.HOT, Heat.WARM)
            for sandbox in (hot, warm):
                assert await house.marks(sandbox) == (sandbox.spec.name, sandbox.spec.name)
                assert vmms_of(sandbox.id) == pids[sandbox.id]
        finally:
            await house.destroy_all()


async def test_a_daemon_told_so_takes_its_machines_to_disk_when_it_ends(slept_in: DataDirectory) -> None:
    async with opened(slept_in, replace(QUIET, stop_on_exit=True)) as house:
        made = [await house.create("hot"), await house.create("warm")]
        for sandbox in made:
            await house.mark(sandbox, "kept")
        await house.pause(made[1])
    assert [vmms_of(sandbox.id) for sandbox in made] == [[], []]

    async with opened(slept_in) as house:
        try:
            for sandbox in made:
                assert (await house.look(sandbox)).state is SandboxState.STOPPED
                assert await house.marks(sandbox) == ("kept", "kept")
        finally:
            await house.destroy_all()
