"""What is taken of real VMMs that stand still, how much of it is held, and who can still change it."""

from __future__ import annotations

import asyncio
import os
import random
import stat
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import pytest_asyncio
from tests.engine.qemu.vmms import MEMORY_BYTES, Vmms, peek, poke, template_of, vmms
from tests.machines.sleepers import start_threads

from hearth.engine.base import MachineDied, MachineSpec, RunState
from hearth.engine.manifest import MemoryKind
from hearth.engine.memory_image import STREAMED_BYTES, read_diff
from hearth.engine.qemu.capture import STATE_NAME
from hearth.engine.qemu.machine import QemuMachine
from hearth.engine.snapshot import DISK, STATE, StoredSnapshot, stage, verify
from hearth.errors import Conflict, EngineFailed
from hearth.host.block_hash import BlockHash
from hearth.host.memory import Extent

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.root, pytest.mark.vm]

PAGE = 4096
MANY_BYTES = 2 * STREAMED_BYTES
"""More than is held at a time of a machine that stays paused."""
CAPTURE_BYTES = 4 * MEMORY_BYTES
HELD_AT_ONCE = 3
"""Machines that go on may be held by that; the rest is for those that do not."""
WAIT_S = 60.0
SHORT_S = 0.2


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house() -> AsyncIterator[Vmms]:
    await start_threads()
    async with vmms(capture_bytes=CAPTURE_BYTES) as made:
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def template(house: Vmms) -> AsyncIterator[StoredSnapshot]:
    async with template_of(house) as made:
        yield made


async def test_all_of_a_memory_can_be_read_while_it_is_written(house: Vmms) -> None:
    async with house.booting() as (machine, spec), machine.turn(spec, stays_paused=True) as turn:
        await poke(machine, 5 * PAGE, random.Random(2).randbytes(PAGE) * 3)
        assert turn.held_bytes == STREAMED_BYTES
        stored = await house.snapshot(machine, spec, "tpl-streamed", with_disk=True, turn=turn)
        memory = BlockHash()
        memory.update(await peek(machine))
    assert stored.memory_record.block_hash == memory.hexdigest()
    assert stored.memory_record.size_bytes == MEMORY_BYTES
    assert stored.manifest.memory.kind is MemoryKind.FULL
    assert set(stored.manifest.files) == {"memory", STATE, DISK}


@pytest.mark.parametrize("stays_paused", [True, False])
async def test_a_diff_has_what_was_written_since_whether_it_is_read_first_or_piece_by_piece(
    house: Vmms, template: StoredSnapshot, stays_paused: bool
) -> None:
    noise = random.Random(4).randbytes(PAGE) * (MANY_BYTES // PAGE)
    async with (
        house.clone(template.directory) as (machine, spec),
        machine.turn(spec, stays_paused=stays_paused) as turn,
    ):
        await poke(machine, 8 * PAGE, noise)
        await poke(machine, MEMORY_BYTES - PAGE, b"x" * PAGE)
        name = f"fork-{stays_paused}"
        stored = await house.snapshot(machine, spec, name, with_disk=True, turn=turn)
        # All that was written is held, or no more than some windows of it.
        assert turn.held_bytes < MEMORY_BYTES
        assert turn.held_bytes == STREAMED_BYTES if stays_paused else turn.held_bytes >= MANY_BYTES
        expected = await peek(machine)
    assert stored.manifest.memory.base == template.manifest.full_memory
    with read_diff(stored.memory, MEMORY_BYTES, expected=stored.memory_record) as diff:
        position = 0
        for extent in diff.extents:
            assert bytes(diff.data[position : position + extent.length]) == expected[extent.offset : extent.end]
            position += extent.length
        assert any(e.offset <= 8 * PAGE and e.end >= 8 * PAGE + MANY_BYTES for e in diff.extents)
        assert diff.extents[-1] == Extent(MEMORY_BYTES - PAGE, PAGE)


async def test_only_a_machine_that_stands_still_can_be_taken(house: Vmms, template: StoredSnapshot) -> None:
    async with house.clone(template.directory) as (machine, spec):
        await machine.resume()
        staging = stage(house.data.snapshots / "never")
        with pytest.raises(Conflict, match="only a paused machine"):
            await machine.capture(spec, staging, with_disk=False)
        assert list(staging.iterdir()) == []


async def test_a_vmm_that_ends_while_its_memory_is_read_is_told(house: Vmms, template: StoredSnapshot) -> None:
    async with house.clone(template.directory) as (machine, spec), machine.turn(spec, stays_paused=True) as turn:
        capture = await machine.capture(spec, stage(house.data.snapshots / "torn"), with_disk=False, turn=turn)
        await machine.kill()
        with pytest.raises(MachineDied, match="ended while its memory was read"):
            await capture.store()


async def test_a_dead_vmm_gives_no_capture(house: Vmms, template: StoredSnapshot) -> None:
    async with house.clone(template.directory) as (machine, spec):
        await machine.kill()
        with pytest.raises(EngineFailed):
            await machine.capture(spec, stage(house.data.snapshots / "dead"), with_disk=False)


async def test_who_would_hold_more_than_there_is_waits_for_the_others(house: Vmms, template: StoredSnapshot) -> None:
    async with house.clone(template.directory) as (machine, spec), AsyncExitStack() as held:
        for _ in range(HELD_AT_ONCE):
            await held.enter_async_context(machine.turn(spec, stays_paused=False))
        async with asyncio.timeout(WAIT_S), machine.turn(spec, stays_paused=True) as turn:
            assert turn.held_bytes == STREAMED_BYTES, "to stop makes room: it does not wait for them"
        waiting = asyncio.create_task(_pause_in_turn(machine, spec))
        done, _ = await asyncio.wait({waiting}, timeout=SHORT_S)
        assert not done
        await held.aclose()
        await asyncio.wait_for(waiting, WAIT_S)


async def _pause_in_turn(machine: QemuMachine, spec: MachineSpec) -> None:
    async with machine.turn(spec, stays_paused=False):
        await machine.pause()


def scribble(machine: QemuMachine) -> list[str]:
    """Do what a VMM that was broken out of could: write to all regular files it was given for writing."""
    touched = []
    for link in Path(f"/proc/{machine.pid}/fd").iterdir():
        flags = Path(f"/proc/{machine.pid}/fdinfo/{link.name}").read_text().split("flags:")[1].split()[0]
        if int(flags, 8) & os.O_ACCMODE == os.O_RDONLY or not stat.S_ISREG(link.stat().st_mode):
            continue
        descriptor = os.open(link, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.pwrite(descriptor, b"broken out", 0)
            touched.append(str(link.readlink()))
        except PermissionError:
            continue  # it is sealed
        finally:
            os.close(descriptor)
    return touched


async def test_a_vmm_that_still_has_its_descriptors_cannot_change_what_was_published(
    house: Vmms, template: StoredSnapshot
) -> None:
    async with house.clone(template.directory) as (machine, spec):
        stored = await house.snapshot(machine, spec, "ckp-kept", with_disk=True)
        before = (stored.directory / STATE).read_bytes()
        touched = scribble(machine)
        assert any(STATE_NAME in name for name in touched), "QEMU gave its descriptor back: this proves nothing"
        assert await asyncio.to_thread(verify, stored.directory)
        assert (stored.directory / STATE).read_bytes() == before
    async with house.prepared(stored.directory) as copy, house.restored(stored.directory, copy) as woken:
        assert await woken.run_state() is RunState.PAUSED
