"""The runner: what it does, undoes, stores and tells when a plan is broken at any place."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from itertools import pairwise

import pytest

from hearth.errors import Code, Conflict, EngineFailed, NotFound
from hearth.host.clock import ManualClock
from hearth.jobs.events import Moment, StepEvent
from hearth.jobs.failure import UndoFailed
from hearth.jobs.lease import LeaseTerms
from hearth.jobs.plan import InputUnreadable, Plan, Step
from hearth.jobs.runner import UNFINISHED, Runner
from hearth.model import Job, JobState, StepPhase
from hearth.store.memory import MemoryStore

STEPS = ("a", "b", "c")
TERMS = LeaseTerms(lease_s=30, heartbeat_s=10)


@dataclass(frozen=True, kw_only=True)
class Order:
    name: str


Half = Callable[[Order], Awaitable[None]]


@dataclass(kw_only=True)
class Workshop:
    """A small world that steps change: ``things`` is what exists, ``told`` what happened in which order.

    ``on_do`` and ``on_undo`` hold, by a step's name, what it does besides its mark: fail, hang, take its time.
    """

    clock: ManualClock = field(default_factory=ManualClock)
    things: set[str] = field(default_factory=set)
    told: list[str] = field(default_factory=list)
    events: list[StepEvent] = field(default_factory=list)
    on_do: dict[str, Half] = field(default_factory=dict)
    on_undo: dict[str, Half] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.store = MemoryStore(clock=self.clock)

    def step(self, name: str, undo_timeout_s: float) -> Step[Order]:
        async def do(order: Order) -> None:
            self.told.append(f"do {name}")
            self.things.add(f"{order.name}/{name}")
            if name in self.on_do:
                await self.on_do[name](order)

        async def undo(order: Order) -> None:
            self.told.append(f"undo {name}")
            if name in self.on_undo:
                await self.on_undo[name](order)
            self.things.discard(f"{order.name}/{name}")

        return Step(name=name, do=do, undo=undo, undo_timeout_s=undo_timeout_s)

    def plan(self, *, undo_timeout_s: float = 10.0) -> Plan[Order]:
        return Plan(kind="test", input_type=Order, steps=[self.step(name, undo_timeout_s) for name in STEPS])

    def runner(self, owner: str = "d1") -> Runner:
        return Runner(self.store.jobs, owner=owner, clock=self.clock, terms=TERMS, observer=self.events.append)

    async def submit(self) -> str:
        return (await self.runner().submit(self.plan(), "sb-1", Order(name="x"))).id


@pytest.fixture
async def shop() -> AsyncIterator[Workshop]:
    """A workshop; no task may be left when the test is over."""
    yield Workshop()
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def fail(_: Order) -> None:
    raise EngineFailed("the machine broke", details="it burns", resolution="buy another")


def undos_after(step: str) -> list[str]:
    return [f"undo {name}" for name in reversed(STEPS[: STEPS.index(step) + 1])]


async def test_a_plan_that_works_is_done_in_order_and_stored_with_its_times(shop: Workshop) -> None:
    async def take_time(_: Order) -> None:
        shop.clock.advance(1.5)

    shop.on_do["b"] = take_time
    job_id = await shop.submit()
    job = await shop.runner().run(job_id, shop.plan())
    assert shop.told == ["do a", "do b", "do c"]
    assert (job.state, job.step, job.attempt, job.error, job.lease_owner) == (JobState.COMPLETED, "c", 1, None, None)
    assert [(record.name, record.phase, record.duration_s) for record in job.steps] == [
        ("a", StepPhase.DO, 0.0),
        ("b", StepPhase.DO, 1.5),
        ("c", StepPhase.DO, 0.0),
    ]
    assert job == await shop.store.jobs.get(job_id)


async def test_a_step_is_stored_before_it_is_done(shop: Workshop) -> None:
    job_id = await shop.submit()
    seen: list[tuple[str, str | None, JobState]] = []

    def look(name: str) -> Half:
        async def half(_: Order) -> None:
            job = await shop.store.jobs.get(job_id)
            seen.append((name, job.step, job.state))

        return half

    shop.on_do = {name: look(name) for name in STEPS}
    await shop.runner().run(job_id, shop.plan())
    assert seen == [(name, name, JobState.RUNNING) for name in STEPS]


@pytest.mark.parametrize("step", STEPS)
async def test_a_step_that_fails_is_undone_with_those_before_it(shop: Workshop, step: str) -> None:
    shop.on_do[step] = fail
    job_id = await shop.submit()
    with pytest.raises(EngineFailed, match="burns"):
        await shop.runner().run(job_id, shop.plan())
    assert [line for line in shop.told if line.startswith("undo")] == undos_after(step)
    assert shop.things == set()
    job = await shop.store.jobs.get(job_id)
    assert (job.state, job.step, job.lease_owner) == (JobState.FAILED, step, None)
    assert job.error is not None
    assert (job.error.code, job.error.details) == (Code.ENGINE_FAILED, "it burns")


@pytest.mark.parametrize("step", STEPS)
async def test_a_cancelled_step_is_undone_before_the_cancellation_passes(shop: Workshop, step: str) -> None:
    reached = asyncio.Event()

    async def hang(_: Order) -> None:
        reached.set()
        await asyncio.Event().wait()

    shop.on_do[step] = hang
    job_id = await shop.submit()
    running = asyncio.create_task(shop.runner().run(job_id, shop.plan()))
    await reached.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert [line for line in shop.told if line.startswith("undo")] == undos_after(step)
    assert shop.things == set()
    job = await shop.store.jobs.get(job_id)
    assert job.state == JobState.CANCELLED
    assert job.error is not None
    assert job.error.code == Code.CANCELLED


async def test_a_timeout_around_a_run_is_a_timeout_and_everything_is_undone(shop: Workshop) -> None:
    async def hang(_: Order) -> None:
        await asyncio.Event().wait()

    shop.on_do["b"] = hang
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.02):
            await shop.runner().run(await shop.submit(), shop.plan())
    assert shop.things == set()


async def test_cancelling_again_and_again_does_not_break_an_undo(shop: Workshop) -> None:
    undoing, go_on = asyncio.Event(), asyncio.Event()

    async def linger(_: Order) -> None:
        undoing.set()
        await go_on.wait()

    shop.on_do["c"] = fail
    shop.on_undo["b"] = linger
    job_id = await shop.submit()
    running = asyncio.create_task(shop.runner().run(job_id, shop.plan()))
    await undoing.wait()
    for _ in range(3):
        running.cancel()
        done, _ = await asyncio.wait({running}, timeout=0.01)
        assert not done
    go_on.set()
    with pytest.raises(asyncio.CancelledError) as caught:
        await running
    assert isinstance(caught.value.__cause__, EngineFailed)
    assert shop.things == set()
    assert (await shop.store.jobs.get(job_id)).state == JobState.FAILED


async def test_a_cancellation_during_the_claim_ends_the_job_before_its_first_step(shop: Workshop) -> None:
    job_id = await shop.submit()
    running = asyncio.create_task(shop.runner().run(job_id, shop.plan()))
    await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert shop.told == []
    assert (await shop.store.jobs.get(job_id)).state == JobState.CANCELLED


@pytest.mark.parametrize("step", STEPS)
async def test_an_undo_that_fails_does_not_stop_the_others_nor_hide_the_error(shop: Workshop, step: str) -> None:
    async def resist(_: Order) -> None:
        raise OSError(16, "busy")

    shop.on_do["c"] = fail
    shop.on_undo[step] = resist
    job_id = await shop.submit()
    with pytest.raises(EngineFailed, match="burns"):
        await shop.runner().run(job_id, shop.plan())
    assert [line for line in shop.told if line.startswith("undo")] == ["undo c", "undo b", "undo a"]
    assert shop.things == {f"x/{step}"}
    job = await shop.store.jobs.get(job_id)
    assert (job.state, job.lease_owner) == (JobState.UNDOING, "d1")
    assert {record.name for record in job.steps if record.phase == StepPhase.UNDO and record.error} == {step}


async def test_an_undo_that_hangs_is_given_up_after_its_time(shop: Workshop) -> None:
    async def hang(_: Order) -> None:
        await asyncio.Event().wait()

    shop.on_do["c"] = fail
    shop.on_undo["b"] = hang
    job_id = await shop.submit()
    with pytest.raises(EngineFailed):
        await shop.runner().run(job_id, shop.plan(undo_timeout_s=0.02))
    assert shop.things == {"x/b"}
    records = (await shop.store.jobs.get(job_id)).steps
    assert [record.error for record in records if record.error] == [
        "the machine broke: it burns (buy another)",
        "the undo took too long: b: 0.02 s",
    ]


async def test_what_resisted_once_is_undone_at_the_next_try(shop: Workshop) -> None:
    async def resist(_: Order) -> None:
        raise OSError(16, "busy")

    shop.on_do["c"] = fail
    shop.on_undo["b"] = resist
    job_id = await shop.submit()
    with pytest.raises(EngineFailed):
        await shop.runner().run(job_id, shop.plan())
    shop.clock.advance(TERMS.lease_s)
    with pytest.raises(UndoFailed, match="b"):
        await shop.runner("d2").unwind(job_id, shop.plan())
    del shop.on_undo["b"]
    shop.clock.advance(TERMS.lease_s)
    assert [job.id for job in await shop.store.jobs.claimable(states=UNFINISHED)] == [job_id]
    job = await shop.runner("d3").unwind(job_id, shop.plan())
    assert shop.things == set()
    assert (job.state, job.attempt) == (JobState.FAILED, 3)
    assert job.error is not None
    assert job.error.details == "it burns"


async def test_an_error_that_is_not_hearths_is_raised_as_it_is_and_stored_without_its_text(shop: Workshop) -> None:
    async def leak(_: Order) -> None:
        raise ValueError("hk_secret")

    shop.on_do["b"] = leak
    job_id = await shop.submit()
    with pytest.raises(ValueError, match="hk_secret"):
        await shop.runner().run(job_id, shop.plan())
    job = await shop.store.jobs.get(job_id)
    assert job.error is not None
    assert (job.error.code, job.error.details) == (Code.INTERNAL, "ValueError")
    assert "secret" not in repr(job)


async def test_events_tell_start_and_end_of_every_half_in_order(shop: Workshop) -> None:
    shop.on_do["b"] = fail
    with pytest.raises(EngineFailed):
        await shop.runner().run(await shop.submit(), shop.plan())
    assert [(event.number, event.step, event.phase, event.moment) for event in shop.events] == [
        (1, "a", StepPhase.DO, Moment.STARTED),
        (1, "a", StepPhase.DO, Moment.DONE),
        (2, "b", StepPhase.DO, Moment.STARTED),
        (2, "b", StepPhase.DO, Moment.FAILED),
        (2, "b", StepPhase.UNDO, Moment.STARTED),
        (2, "b", StepPhase.UNDO, Moment.DONE),
        (1, "a", StepPhase.UNDO, Moment.STARTED),
        (1, "a", StepPhase.UNDO, Moment.DONE),
    ]
    assert {(event.kind, event.subject, event.count) for event in shop.events} == {("test", "sb-1", 3)}
    for first, second in pairwise(shop.events):
        assert (first.duration_s is None) != (second.duration_s is None)


async def test_an_observer_that_fails_changes_nothing(shop: Workshop) -> None:
    def burst(_: StepEvent) -> None:
        raise ZeroDivisionError

    runner = Runner(shop.store.jobs, owner="d1", clock=shop.clock, observer=burst)
    job = await runner.run(await shop.submit(), shop.plan())
    assert job.state == JobState.COMPLETED


async def test_a_job_runs_once(shop: Workshop) -> None:
    job_id = await shop.submit()
    outcomes = await asyncio.gather(
        *(shop.runner(f"d{number}").run(job_id, shop.plan()) for number in range(5)), return_exceptions=True
    )
    assert sum(isinstance(outcome, Job) for outcome in outcomes) == 1
    assert sum(isinstance(outcome, Conflict) for outcome in outcomes) == 4
    assert shop.told == ["do a", "do b", "do c"]


async def test_an_unknown_job_is_not_found(shop: Workshop) -> None:
    with pytest.raises(NotFound):
        await shop.runner().run("job-x", shop.plan())


async def test_an_input_the_plan_cannot_read_fails_the_job_with_nothing_done(shop: Workshop) -> None:
    await shop.store.jobs.create(
        Job(id="job-1", kind="test", subject="sb-1", input={"name": 7}, created_at=shop.clock.now())
    )
    with pytest.raises(InputUnreadable):
        await shop.runner().run("job-1", shop.plan())
    assert shop.told == []
    assert (await shop.store.jobs.get("job-1")).state == JobState.FAILED
