"""Jobs whose database cannot be written for a while: another process holds a real SQLite file."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from hearth.errors import EngineFailed
from hearth.host.clock import ManualClock
from hearth.jobs.lease import LeaseTerms, keep_alive
from hearth.jobs.plan import Plan, Step
from hearth.jobs.runner import Runner
from hearth.model import Job, JobState
from hearth.store.base import LeaseLost
from hearth.store.migrate import migrate
from hearth.store.sql import SqlStore, open_store
from hearth.store.sqlite import sqlite_url

TERMS = LeaseTerms(lease_s=30, heartbeat_s=10)


@dataclass(frozen=True, kw_only=True)
class Nothing:
    """An empty input."""


class Blocker:
    """Another process's transaction on the database."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None)

    def block(self) -> None:
        self._connection.execute("BEGIN IMMEDIATE")

    def let_go(self) -> None:
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")

    def close(self) -> None:
        self.let_go()
        self._connection.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    migrate(sqlite_url(tmp_path / "hearth.db"))
    return tmp_path / "hearth.db"


@pytest.fixture
def blocker(path: Path) -> Iterator[Blocker]:
    made = Blocker(path)
    yield made
    made.close()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def store(path: Path, clock: ManualClock) -> AsyncIterator[SqlStore]:
    opened = await open_store(sqlite_url(path), clock=clock, busy_timeout_s=0.01)
    yield opened
    await opened.close()


@pytest.mark.parametrize(("freed_by_undo", "state"), [(True, JobState.FAILED), (False, JobState.RUNNING)])
async def test_a_failure_that_cannot_be_stored_is_undone_and_raised_all_the_same(
    store: SqlStore, clock: ManualClock, blocker: Blocker, freed_by_undo: bool, state: JobState
) -> None:
    undone: list[str] = []

    async def fail(_: Nothing) -> None:
        blocker.block()
        raise EngineFailed("the machine broke")

    async def undo(_: Nothing) -> None:
        undone.append("undone")
        if freed_by_undo:
            blocker.let_go()

    plan = Plan(kind="test", input_type=Nothing, steps=[Step(name="only", do=fail, undo=undo)])
    runner = Runner(store.jobs, owner="d1", clock=clock, terms=TERMS)
    job = await runner.submit(plan, "sb-1", Nothing())
    with pytest.raises(EngineFailed):
        await runner.run(job.id, plan)
    assert undone == ["undone"]
    assert (await store.jobs.get(job.id)).state == state


@pytest.mark.parametrize(("good", "blocked", "lost"), [(0, 2, False), (0, 3, True), (2, 2, False), (2, 3, True)])
async def test_heartbeats_may_fail_until_the_lease_has_run_out(
    store: SqlStore, clock: ManualClock, blocker: Blocker, good: int, blocked: int, lost: bool
) -> None:
    await store.jobs.create(Job(id="job-1", kind="test", subject="sb-1", created_at=clock.now()))
    await store.jobs.claim("job-1", "d1", expected={JobState.PENDING}, new=JobState.RUNNING, lease_s=TERMS.lease_s)
    beating = asyncio.create_task(keep_alive(store.jobs, "job-1", "d1", terms=TERMS, clock=clock))
    for beat in range(good + blocked):
        await clock.wait_for_sleepers()
        if beat == good:
            blocker.block()
        clock.advance(TERMS.heartbeat_s)
    sleeping_again = asyncio.create_task(clock.wait_for_sleepers())
    await asyncio.wait({beating, sleeping_again}, return_when=asyncio.FIRST_COMPLETED)
    assert beating.done() is lost
    for task in (beating, sleeping_again):
        task.cancel()
    outcomes = await asyncio.gather(beating, sleeping_again, return_exceptions=True)
    assert isinstance(outcomes[0], LeaseLost if lost else asyncio.CancelledError)


async def test_a_job_whose_lease_could_not_be_renewed_stops_and_undoes_nothing(
    store: SqlStore, clock: ManualClock, blocker: Blocker
) -> None:
    undone: list[str] = []
    blocked = asyncio.Event()

    async def hang(_: Nothing) -> None:
        blocker.block()
        blocked.set()
        await asyncio.Event().wait()

    async def undo(_: Nothing) -> None:
        undone.append("undone")

    plan = Plan(kind="test", input_type=Nothing, steps=[Step(name="only", do=hang, undo=undo)])
    runner = Runner(store.jobs, owner="d1", clock=clock, terms=TERMS)
    job = await runner.submit(plan, "sb-1", Nothing())
    running = asyncio.create_task(runner.run(job.id, plan))
    await blocked.wait()
    for _ in range(3):
        await clock.wait_for_sleepers()
        clock.advance(TERMS.heartbeat_s)
    with pytest.raises(LeaseLost, match="could not be renewed"):
        await running
    assert undone == []
    assert (await store.jobs.get(job.id)).state == JobState.RUNNING
