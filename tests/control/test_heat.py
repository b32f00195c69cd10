"""The loop with a house of its own: machines as values, every action noted, a clock the test moves."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from hearth.control.activity import Signs
from hearth.control.heat import Failure, HeatLoop, InUse, Observation, host_reader
from hearth.control.thermal import Action, HostState, Policy, Reason, Skip
from hearth.errors import EngineFailed, NotFound
from hearth.host.clock import ManualClock
from hearth.host.pressure import PressureLevel
from hearth.model import Heat

POLICY = Policy(idle_pause_s=30, idle_stop_s=1800, min_free_mib=0)
YEAR_S = 365 * 24 * 3600


class House:
    """A thermostat whose machines are values; like a real one it refuses to ask a paused guest anything."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.machines: dict[str, Observation] = {}
        self.host = HostState(pressure=PressureLevel.NONE, swap_free_mib=0, disk_free_mib=10_000)
        self.done: list[tuple[Action, str]] = []
        self.refusals: dict[str, list[BaseException]] = {}
        self.blind: list[Exception] = []
        self.gates: dict[str, asyncio.Event] = {}
        self.at_once: dict[str, int] = {}
        self.stopping = 0
        self.most_stopping = 0

    def add(self, sandbox_id: str, heat: Heat = Heat.HOT, **facts: object) -> None:
        self.machines[sandbox_id] = replace(Observation(id=sandbox_id, heat=heat), **facts)  # type: ignore[arg-type]

    def use(self, sandbox_id: str) -> None:
        signs = Signs(last_operation_s=self.clock.monotonic())
        self.machines[sandbox_id] = replace(self.machines[sandbox_id], heat=Heat.HOT, paged_out=False, signs=signs)

    async def observe(self) -> Sequence[Observation]:
        if self.blind:
            raise self.blind.pop(0)
        return list(self.machines.values())

    async def look_at_host(self) -> HostState:
        return self.host

    async def pause(self, sandbox_id: str) -> None:
        async with self._acting(Action.PAUSE, sandbox_id):
            self._set(sandbox_id, heat=Heat.WARM)

    async def page_out(self, sandbox_id: str) -> None:
        async with self._acting(Action.PAGE_OUT, sandbox_id):
            assert self.machines[sandbox_id].heat is Heat.WARM
            self._set(sandbox_id, paged_out=True)

    async def stop(self, sandbox_id: str) -> None:
        async with self._acting(Action.STOP, sandbox_id):
            self._set(sandbox_id, heat=Heat.COLD, paged_out=False)

    async def expire(self, sandbox_id: str) -> None:
        async with self._acting(Action.EXPIRE, sandbox_id):
            del self.machines[sandbox_id]

    def _set(self, sandbox_id: str, **facts: object) -> None:
        self.machines[sandbox_id] = replace(self.machines[sandbox_id], **facts)  # type: ignore[arg-type]

    @contextlib.asynccontextmanager
    async def _acting(self, action: Action, sandbox_id: str) -> AsyncIterator[None]:
        assert self.at_once.get(sandbox_id, 0) == 0, f"two actions at once on {sandbox_id}"
        self.at_once[sandbox_id] = 1
        self.stopping += action is Action.STOP
        self.most_stopping = max(self.most_stopping, self.stopping)
        try:
            if sandbox_id in self.gates:
                await self.gates[sandbox_id].wait()
            if self.refusals.get(sandbox_id):
                raise self.refusals[sandbox_id].pop(0)
            yield
            self.done.append((action, sandbox_id))
        finally:
            self.at_once[sandbox_id] = 0
            self.stopping -= action is Action.STOP


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def house(clock: ManualClock) -> House:
    return House(clock)


class Running:
    """A loop at work, and what makes time pass for it."""

    def __init__(self, loop: HeatLoop, clock: ManualClock) -> None:
        self.loop = loop
        self._clock = clock

    async def pass_s(self, duration_s: float) -> None:
        """Let time pass round by round: never further than to the loop's next waking."""
        until_s = self._clock.monotonic() + duration_s
        while self._clock.monotonic() < until_s:
            await self.settle()
            self._clock.advance(min(5.0, until_s - self._clock.monotonic()))
        await self.settle()

    async def settle(self) -> None:
        """Return once the loop sleeps and what it began has had its turns."""
        for _ in range(5):
            await asyncio.sleep(0)
        await self._clock.wait_for_sleepers()


@contextlib.asynccontextmanager
async def running(
    house: House, *, policy: Policy = POLICY, interval_s: float = 5.0, failures: list[Failure] | None = None
) -> AsyncIterator[Running]:
    seen: list[Failure] = [] if failures is None else failures
    loop = HeatLoop(
        house, host=house.look_at_host, clock=house.clock, policy=policy, interval_s=interval_s, on_failure=seen.append
    )
    task = asyncio.create_task(loop.run(), name="heat")
    working = Running(loop, house.clock)
    try:
        await working.settle()
        yield working
        assert not task.done()
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_an_unused_machine_is_paused_then_stopped(house: House) -> None:
    house.add("sb-1")
    async with running(house) as heat:
        await heat.pass_s(29)
        assert house.done == []
        await heat.pass_s(2)
        assert house.done == [(Action.PAUSE, "sb-1")]
        await heat.pass_s(1768)
        assert house.done == [(Action.PAUSE, "sb-1")]
        await heat.pass_s(6)
        assert house.done == [(Action.PAUSE, "sb-1"), (Action.STOP, "sb-1")]
        assert heat.loop.counters.begun == {(Action.PAUSE, Reason.IDLE): 1, (Action.STOP, Reason.IDLE): 1}
        assert heat.loop.counters.done == {Action.PAUSE: 1, Action.STOP: 1}
        assert heat.loop.counters.skips[Skip.IN_USE] > 0
        assert heat.loop.counters.skips[Skip.NO_SWAP] > 0
        assert heat.loop.idle_s("sb-1") == house.clock.monotonic()
        assert heat.loop.idle_s("sb-x") is None


async def test_where_the_host_has_swap_its_memory_goes_there_in_between(house: House) -> None:
    house.add("sb-1")
    house.host = replace(house.host, swap_free_mib=1000)
    async with running(house) as heat:
        await heat.pass_s(1810)
    assert house.done == [(Action.PAUSE, "sb-1"), (Action.PAGE_OUT, "sb-1"), (Action.STOP, "sb-1")]
    assert heat.loop.counters.skips[Skip.RESTING] > 0


async def test_it_is_paused_on_time_though_the_loop_looks_seldom(house: House) -> None:
    house.add("sb-1")
    async with running(house, interval_s=3600) as heat:
        await heat.pass_s(30)
        assert house.done == [(Action.PAUSE, "sb-1")]


async def test_use_starts_its_time_anew(house: House) -> None:
    house.add("sb-1")
    async with running(house) as heat:
        for _ in range(10):
            await heat.pass_s(25)
            house.use("sb-1")
        assert house.done == []
        await heat.pass_s(31)
        assert house.done == [(Action.PAUSE, "sb-1")]


async def test_what_is_pinned_stays_and_every_skip_is_counted_by_its_reason(house: House) -> None:
    house.add("attached", signs=Signs(attached=1))
    house.add("operating", signs=Signs(operations=1))
    house.add("kept", keep_hot=True)
    house.add("cold", Heat.COLD)
    house.add("waking", Heat.COLD, busy=True)
    async with running(house) as heat:
        await heat.pass_s(4000)
        assert house.done == []
        rounds = heat.loop.counters.rounds
        assert rounds >= 800
        assert heat.loop.counters.skips == dict.fromkeys(
            [Skip.ATTACHED, Skip.OPERATION, Skip.KEEP_HOT, Skip.COLD, Skip.BUSY], rounds
        )


async def test_one_past_its_time_is_destroyed_whatever_it_does(house: House) -> None:
    expires_at = house.clock.now() + timedelta(seconds=60)
    house.add("sb-1", signs=Signs(attached=1), keep_hot=True, expires_at=expires_at)
    async with running(house) as heat:
        await heat.pass_s(59)
        assert house.done == []
        await heat.pass_s(2)
        assert house.done == [(Action.EXPIRE, "sb-1")]
        await heat.pass_s(60)
        assert house.done == [(Action.EXPIRE, "sb-1")]
        assert heat.loop.idle_s("sb-1") is None


async def test_a_stop_that_takes_long_delays_no_other_machine_and_is_not_begun_twice(house: House) -> None:
    house.add("slow", idle_pause_s=1e6, idle_stop_s=10)
    house.add("other")
    house.gates["slow"] = asyncio.Event()
    async with running(house) as heat:
        await heat.pass_s(100)
        assert house.done == [(Action.PAUSE, "other")]
        assert heat.loop.counters.skips[Skip.BUSY] > 10
        house.gates["slow"].set()
        await heat.settle()
        assert house.done[-1] == (Action.STOP, "slow")


async def test_only_so_many_stops_run_at_once_and_all_have_their_turn(house: House) -> None:
    for number in range(7):
        house.add(f"sb-{number}", Heat.WARM, idle_stop_s=10)
        house.gates[f"sb-{number}"] = asyncio.Event()
    async with running(house) as heat:
        await heat.pass_s(60)
        assert house.stopping == 2
        for gate in house.gates.values():
            gate.set()
        await heat.pass_s(60)
        assert house.most_stopping == 2
        assert sorted(house.done) == [(Action.STOP, f"sb-{number}") for number in range(7)]


async def test_a_failing_stop_is_told_each_time_tried_thrice_and_then_seldom(house: House) -> None:
    house.add("bad", Heat.WARM, idle_stop_s=10)
    house.add("good", Heat.WARM, idle_stop_s=10)
    house.refusals["bad"] = [EngineFailed(f"no {number}") for number in range(4)]
    failures: list[Failure] = []
    async with running(house, failures=failures) as heat:
        await heat.pass_s(20)
        assert house.done == [(Action.STOP, "good")]
        await heat.pass_s(3600)
        assert [(failure.tries, str(failure.error)) for failure in failures] == [(1, "no 0"), (2, "no 1"), (3, "no 2")]
        assert heat.loop.counters.skips[Skip.BACKING_OFF] > 0
        assert heat.loop.counters.skips[Skip.GAVE_UP] > 0
        await heat.pass_s(6 * 3600)
        assert len(failures) == 4
        await heat.pass_s(6 * 3600)
        assert (Action.STOP, "bad") in house.done
        assert heat.loop.counters.failed == {Action.STOP: 4}


async def test_success_wipes_out_the_failures_before_it(house: House) -> None:
    house.add("sb-1", Heat.WARM, idle_stop_s=10)
    house.refusals["sb-1"] = [EngineFailed("first")]
    failures: list[Failure] = []
    async with running(house, failures=failures) as heat:
        await heat.pass_s(100)
        assert house.done == [(Action.STOP, "sb-1")]
        house.use("sb-1")
        house.refusals["sb-1"] = [EngineFailed("second")]
        await heat.pass_s(20)
        assert [failure.tries for failure in failures] == [1, 1]


@pytest.mark.parametrize("error", [InUse("somebody came"), NotFound("it is gone")])
async def test_one_that_is_needed_after_all_is_no_failure(house: House, error: Exception) -> None:
    house.add("sb-1")
    house.refusals["sb-1"] = [error]
    failures: list[Failure] = []
    async with running(house, failures=failures) as heat:
        await heat.pass_s(36)
        assert house.done == [(Action.PAUSE, "sb-1")]
        assert failures == []
        assert heat.loop.counters.skips[Skip.USED_MEANWHILE] == 1


async def test_one_machines_bug_and_a_blind_round_stop_nothing(house: House) -> None:
    house.add("bad")
    house.add("good")
    house.refusals["bad"] = [ZeroDivisionError("a bug")]
    house.blind = [OSError("no /proc"), RuntimeError("a bug")]
    async with running(house) as heat:
        await heat.pass_s(45)
        assert (Action.PAUSE, "good") in house.done
        assert heat.loop.counters.blind_rounds == 2
        assert heat.loop.counters.failed == {Action.PAUSE: 1}


async def test_a_pressed_host_cools_warm_ones_at_once_the_idlest_first(house: House) -> None:
    house.add("hot")
    house.add("warm-new", Heat.WARM, signs=Signs(guest_idle_s=20))
    house.add("warm-old", Heat.WARM, signs=Signs(guest_idle_s=60))
    house.host = replace(house.host, pressure=PressureLevel.HIGH)
    async with running(house) as heat:
        await heat.settle()
        assert house.done == [(Action.STOP, "warm-old"), (Action.STOP, "warm-new")]
        await heat.pass_s(12)
        assert house.done[2:] == [(Action.PAUSE, "hot"), (Action.STOP, "hot")]


async def test_a_cancelled_loop_ends_what_it_began(house: House) -> None:
    house.add("sb-1")
    house.gates["sb-1"] = asyncio.Event()
    async with running(house) as heat:
        await heat.pass_s(31)
        assert house.at_once["sb-1"] == 1
    assert house.at_once["sb-1"] == 0
    assert house.done == []


async def test_a_machine_used_once_a_day_is_stopped_once_a_day_for_a_year(house: House) -> None:
    house.add("sb-1", Heat.COLD)
    async with running(house, interval_s=6 * 3600) as heat:
        for _ in range(365):
            house.use("sb-1")
            for _ in range(4):
                house.clock.advance(6 * 3600)
                await heat.settle()
        assert house.clock.monotonic() == YEAR_S
    assert house.done == [(Action.STOP, "sb-1")] * 365


async def test_this_host_is_read(tmp_path: Path) -> None:
    state = await host_reader(tmp_path)()
    assert state.disk_free_mib > 0
    assert state.pressure in PressureLevel
