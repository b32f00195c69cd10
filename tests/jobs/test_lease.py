"""Leases: the heartbeat, its loss, and the takeover, on a clock the test moves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta

import pytest

from hearth.errors import NotFound
from hearth.host.clock import ManualClock
from hearth.jobs.lease import LeaseTerms, keep_alive
from hearth.jobs.plan import Plan, Step
from hearth.jobs.runner import UNFINISHED, Runner
from hearth.model import JobState
from hearth.store.base import LeaseLost
from hearth.store.memory import MemoryStore

TERMS = LeaseTerms(lease_s=30, heartbeat_s=10)


@dataclass(frozen=True, kw_only=True)
class Order:
    name: str


class Bench:
    """Two daemons, ``d1`` and ``d2``, over one store; the only step hangs until ``go_on``."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.store = MemoryStore(clock=self.clock)
        self.reached = asyncio.Event()
        self.go_on = asyncio.Event()
        self.undone: list[str] = []

    def plan(self, daemon: str) -> Plan[Order]:
        async def do(_: Order) -> None:
            self.reached.set()
            await self.go_on.wait()

        async def undo(_: Order) -> None:
            self.undone.append(daemon)

        return Plan(kind="test", input_type=Order, steps=[Step(name="only", do=do, undo=undo)])

    def runner(self, daemon: str) -> Runner:
        return Runner(self.store.jobs, owner=daemon, clock=self.clock, terms=TERMS)

    async def begin(self) -> tuple[str, asyncio.Task[object]]:
        job = await self.runner("d1").submit(self.plan("d1"), "sb-1", Order(name="x"))
        running: asyncio.Task[object] = asyncio.create_task(self.runner("d1").run(job.id, self.plan("d1")))
        await self.reached.wait()
        await self.clock.wait_for_sleepers()
        return job.id, running

    async def beat(self) -> None:
        """Let one heartbeat pass."""
        self.clock.advance(TERMS.heartbeat_s)
        await self.clock.wait_for_sleepers()


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    """Two daemons; no task may be left when the test is over."""
    yield Bench()
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_heartbeat_keeps_a_long_job_from_being_taken_over(bench: Bench) -> None:
    job_id, running = await bench.begin()
    for _ in range(10):
        await bench.beat()
        job = await bench.store.jobs.get(job_id)
        assert job.lease_until == bench.clock.now() + timedelta(seconds=TERMS.lease_s)
        with pytest.raises(LeaseLost):
            await bench.runner("d2").unwind(job_id, bench.plan("d2"))
    bench.go_on.set()
    await running
    assert (await bench.store.jobs.get(job_id)).state == JobState.COMPLETED
    assert bench.undone == []


async def test_a_job_whose_lease_ran_out_is_unwound_by_another_and_left_alone_by_the_first(bench: Bench) -> None:
    job_id, running = await bench.begin()
    # The first daemon freezes for a lease's time: its heartbeat does not come before the other one looks.
    bench.clock.advance(TERMS.lease_s)
    assert [job.id for job in await bench.store.jobs.claimable(states=UNFINISHED)] == [job_id]
    claimed = await bench.store.jobs.claim(
        job_id, "d2", expected=UNFINISHED, new=JobState.UNDOING, lease_s=TERMS.lease_s
    )
    assert (claimed.lease_owner, claimed.attempt) == ("d2", 2)
    with pytest.raises(LeaseLost):
        await running
    assert bench.undone == []
    job = await bench.runner("d3").unwind(job_id, bench.plan("d3"), displacing="d2")
    assert bench.undone == ["d3"]
    assert job.state == JobState.FAILED


async def test_a_dead_daemons_job_is_unwound_at_once_when_its_death_is_certain(bench: Bench) -> None:
    job = await bench.runner("d1").submit(bench.plan("d1"), "sb-1", Order(name="x"))
    await bench.store.jobs.claim(job.id, "dead", expected=UNFINISHED, new=JobState.RUNNING, lease_s=TERMS.lease_s)
    await bench.store.jobs.record(job.id, "dead", step="only", steps=())
    ended = await bench.runner("d2").unwind(job.id, bench.plan("d2"), displacing="dead")
    assert bench.undone == ["d2"]
    assert ended.state == JobState.FAILED
    assert ended.error is not None
    assert "daemon ended" in ended.error.brief


async def test_a_job_that_never_began_is_unwound_to_nothing(bench: Bench) -> None:
    job = await bench.runner("d1").submit(bench.plan("d1"), "sb-1", Order(name="x"))
    ended = await bench.runner("d2").unwind(job.id, bench.plan("d2"))
    assert bench.undone == []
    assert ended.state == JobState.FAILED


async def test_a_heartbeat_ends_when_the_job_is_gone() -> None:
    clock = ManualClock()
    store = MemoryStore(clock=clock)
    beating = asyncio.create_task(keep_alive(store.jobs, "job-x", "d1", terms=TERMS, clock=clock))
    await clock.wait_for_sleepers()
    clock.advance(TERMS.heartbeat_s)
    assert isinstance(await beating, LeaseLost)
    with pytest.raises(NotFound):
        await store.jobs.get("job-x")


@pytest.mark.parametrize(("lease_s", "heartbeat_s"), [(10, 10), (10, 0), (0, 0), (10, -1)])
def test_terms_that_cannot_keep_a_lease_are_refused(lease_s: float, heartbeat_s: float) -> None:
    with pytest.raises(ValueError, match="heartbeat"):
        LeaseTerms(lease_s=lease_s, heartbeat_s=heartbeat_s)
