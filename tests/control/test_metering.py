"""The meter: what was read a moment ago is not read again, and a round that takes too long is cut short, fairly."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tests.control.conftest import House

from hearth.control.metering import FRESH_COLD_S, FRESH_S, Meter
from hearth.host.clock import ManualClock
from hearth.host.process_use import BLOCK_BYTES, allocated_bytes
from hearth.model import Sandbox, SandboxSpec

NOBODY = "sb-nobody"


async def create(house: House, name: str) -> Sandbox:
    return (await house.sandboxes.create(house.admin, SandboxSpec(name=name))).sandbox


def meter_of(house: House, clock: ManualClock, *, budget_s: float) -> Meter:
    return Meter(house.sandboxes.workshop, house.sandboxes.fleet, clock, budget_s=budget_s)


async def test_a_running_sandbox_has_a_process_and_an_unknown_one_has_none(house: House) -> None:
    sandbox = await create(house, "metered")
    found = await meter_of(house, ManualClock(), budget_s=30).read([sandbox.id, NOBODY])
    running, nobody = found[sandbox.id], found[NOBODY]
    assert running.cpu_s is not None
    assert running.memory is not None
    assert running.memory.private_bytes > 0
    assert running.disk_bytes > 0
    assert (nobody.cpu_s, nobody.memory, nobody.traffic, nobody.disk_bytes) == (None, None, None, 0)


async def test_what_was_read_a_moment_ago_is_not_read_again(house: House) -> None:
    sandbox = await create(house, "fresh")
    clock = ManualClock()
    meter = meter_of(house, clock, budget_s=30)

    async def read_at(sandbox_id: str) -> float:
        return (await meter.read([sandbox_id]))[sandbox_id].at_s

    assert (await read_at(sandbox.id), await read_at(NOBODY)) == (0.0, 0.0)
    clock.advance(FRESH_S / 2)
    assert await read_at(sandbox.id) == 0.0
    clock.advance(FRESH_S)
    assert await read_at(sandbox.id) == pytest.approx(1.5 * FRESH_S)
    assert await read_at(NOBODY) == 0.0
    clock.advance(FRESH_COLD_S)
    assert await read_at(NOBODY) == pytest.approx(FRESH_COLD_S + 1.5 * FRESH_S)


async def test_a_round_without_time_reads_one_and_the_next_goes_on_where_it_ended(house: House) -> None:
    ids = [(await create(house, name)).id for name in ("one", "two", "three")]
    meter = meter_of(house, ManualClock(), budget_s=0)
    assert [len(await meter.read(ids)) for _ in range(4)] == [1, 2, 3, 3]
    assert meter.rounds_cut == 2


async def test_what_is_known_of_a_destroyed_sandbox_goes(house: House) -> None:
    meter = meter_of(house, ManualClock(), budget_s=0)
    await meter.read([NOBODY])
    meter.forget_all_but([])
    sandbox = await create(house, "other")
    assert set(await meter.read([sandbox.id, NOBODY])) == {sandbox.id}


def test_allocated_bytes_are_blocks_not_lengths(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    with (tmp_path / "below" / "holes").open("wb") as file:
        file.truncate(1 << 30)
    before = allocated_bytes(tmp_path)
    assert before < 1 << 20
    with (tmp_path / "below" / "full").open("wb") as file:
        file.write(bytes(range(256)) * 4096)
        file.flush()
        os.fsync(file.fileno())
    assert allocated_bytes(tmp_path) >= before + (1 << 20) - BLOCK_BYTES
    assert allocated_bytes(tmp_path / "not there") == 0
