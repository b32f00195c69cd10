"""What every store of jobs promises: compare-and-set states, and leases reckoned by the store's clock."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest

from hearth.errors import Code, Conflict, NotFound
from hearth.host.clock import ManualClock
from hearth.model import Job, JobError, JobState, StepPhase, StepRecord
from hearth.store.base import JOBS_KEPT_FOR, JOBS_KEPT_PER_SUBJECT, JobUnderWay, LeaseLost, LineFull, PageRequest, Store

PENDING, RUNNING, UNDOING = JobState.PENDING, JobState.RUNNING, JobState.UNDOING
LEASE_S = 30.0
Submit = Callable[..., Awaitable[Job]]


@pytest.fixture
def submit(store: Store, clock: ManualClock) -> Submit:
    """Stores pending jobs, each a second younger than the one before."""
    count = 0

    async def submit_one(
        job_id: str = "job-1", *, subject: str = "sb-1", holds: str | None = None, most: int | None = None
    ) -> Job:
        nonlocal count
        count += 1
        created_at = clock.now() + timedelta(seconds=count)
        given = {"size": 1, "tags": ["ü"]}
        job = Job(id=job_id, kind="k", subject=subject, holds=holds, input=given, created_at=created_at)
        await store.jobs.create(job, most=most)
        return job

    return submit_one


async def claim(store: Store, owner: str, *, displacing: str | None = None) -> Job:
    return await store.jobs.claim(
        "job-1", owner, expected={PENDING, RUNNING}, new=RUNNING, lease_s=LEASE_S, displacing=displacing
    )


async def test_a_job_reads_back_as_it_was_written(store: Store, clock: ManualClock) -> None:
    record = StepRecord(name="a", phase=StepPhase.UNDO, started_at=clock.now(), duration_s=0.25, error="no")
    job = Job(
        id="job-1",
        kind="sandbox.create",
        subject="sb-1",
        input={"nested": {"list": [1, None, "x"]}},
        state=UNDOING,
        step="a",
        attempt=3,
        error=JobError(code=Code.NO_SPACE, brief="full", details="d", resolution="r"),
        steps=(record, record),
        lease_owner="d1",
        lease_until=clock.now(),
        created_at=clock.now(),
        started_at=clock.now(),
        finished_at=clock.now(),
        holds="k/file/vm",
        cancel_asked_at=clock.now(),
    )
    await store.jobs.create(job)
    assert await store.jobs.get("job-1") == job


async def test_a_fresh_job_reads_back_with_nothing_in_it(store: Store, submit: Submit) -> None:
    job = await submit()
    assert await store.jobs.get("job-1") == job


async def test_a_taken_id_is_a_conflict(submit: Submit) -> None:
    await submit()
    with pytest.raises(Conflict):
        await submit()


async def test_what_a_job_holds_no_other_gets_until_it_has_ended(store: Store, submit: Submit) -> None:
    first = await submit("job-1", holds="vm")
    for state in (PENDING, RUNNING, UNDOING):
        if state is not PENDING:
            await store.jobs.claim(
                "job-1", "d1", expected={PENDING, RUNNING}, new=state, lease_s=LEASE_S, displacing="d1"
            )
        with pytest.raises(JobUnderWay) as caught:
            await submit("job-2", holds="vm")
        assert (caught.value.job.id, caught.value.job.state, caught.value.job.input) == ("job-1", state, first.input)
    await submit("job-3", holds="another")
    await submit("job-4")
    await submit("job-5")
    await store.jobs.transition("job-1", {UNDOING}, JobState.CANCELLED, owner="d1")
    assert (await submit("job-2", holds="vm")).id == "job-2"
    with pytest.raises(JobUnderWay):
        await submit("job-6", holds="vm")
    assert (await store.jobs.get("job-1")).holds == "vm"
    with pytest.raises(NotFound):
        await store.jobs.get("job-6")


async def test_of_many_that_want_to_hold_the_same_at_once_one_is_stored(store: Store, submit: Submit) -> None:
    wanted = [submit(f"job-{number}", holds="vm") for number in range(12)]
    found = await asyncio.gather(*wanted, return_exceptions=True)
    stored = {each.id for each in found if isinstance(each, Job)}
    assert len(stored) == 1
    assert [each.job.id for each in found if isinstance(each, JobUnderWay)] == [*stored] * 11


async def test_no_more_jobs_than_may_be_in_line_are_stored_though_many_come_at_once(
    store: Store, submit: Submit
) -> None:
    found = await asyncio.gather(
        *(submit(f"job-{n}", holds=f"vm-{n}", most=3) for n in range(12)), return_exceptions=True
    )
    stored = [each for each in found if isinstance(each, Job)]
    assert len(stored) == 3
    assert [each.count for each in found if isinstance(each, LineFull)] == [3] * 9
    assert {job.id for job in (await store.jobs.list()).items} == {job.id for job in stored}
    first = stored[0]
    with pytest.raises(JobUnderWay):  # the same as one that is there is no more
        await submit("job-same", holds=first.holds, most=3)
    with pytest.raises(LineFull):
        await submit("job-none", most=3)
    await submit("job-boundless")
    await store.jobs.transition(first.id, {PENDING}, JobState.CANCELLED, owner=None)
    await store.jobs.transition("job-boundless", {PENDING}, JobState.CANCELLED, owner=None)
    await submit("job-next", most=3)


async def test_a_claim_takes_the_lease_counts_and_stamps(store: Store, submit: Submit, clock: ManualClock) -> None:
    await submit()
    job = await claim(store, "d1")
    assert (job.state, job.lease_owner, job.attempt) == (RUNNING, "d1", 1)
    assert job.lease_until == clock.now() + timedelta(seconds=LEASE_S)
    assert job.started_at == clock.now()
    assert await store.jobs.get("job-1") == job


async def test_of_many_claims_at_once_one_wins(store: Store, submit: Submit) -> None:
    await submit()
    outcomes = await asyncio.gather(*(claim(store, f"d{n}") for n in range(20)), return_exceptions=True)
    assert sum(isinstance(outcome, Job) for outcome in outcomes) == 1
    assert sum(isinstance(outcome, LeaseLost) for outcome in outcomes) == 19


async def test_a_lease_can_be_taken_over_once_it_has_run_out(store: Store, submit: Submit, clock: ManualClock) -> None:
    await submit()
    first = await claim(store, "d1")
    clock.advance(LEASE_S - 0.001)
    with pytest.raises(LeaseLost, match="d1"):
        await claim(store, "d2")
    clock.advance(0.001)
    second = await claim(store, "d2")
    assert (second.lease_owner, second.attempt) == ("d2", 2)
    assert second.started_at == first.started_at


async def test_a_renewed_lease_lasts_longer(store: Store, submit: Submit, clock: ManualClock) -> None:
    await submit()
    await claim(store, "d1")
    clock.advance(LEASE_S - 1)
    await store.jobs.renew("job-1", "d1", lease_s=LEASE_S)
    clock.advance(LEASE_S - 1)
    with pytest.raises(LeaseLost):
        await claim(store, "d2")


async def test_a_lease_of_an_owner_known_to_be_dead_can_be_displaced(store: Store, submit: Submit) -> None:
    await submit()
    await claim(store, "dead")
    with pytest.raises(LeaseLost):
        await claim(store, "d2", displacing="somebody else")
    assert (await claim(store, "d2", displacing="dead")).lease_owner == "d2"


async def test_whoever_lost_the_lease_can_change_nothing(store: Store, submit: Submit, clock: ManualClock) -> None:
    await submit()
    await claim(store, "d1")
    clock.advance(LEASE_S)
    taken = await claim(store, "d2")
    for late in (
        store.jobs.renew("job-1", "d1", lease_s=LEASE_S),
        store.jobs.record("job-1", "d1", step="b", steps=()),
        store.jobs.transition("job-1", {RUNNING}, JobState.COMPLETED, owner="d1"),
        store.jobs.transition("job-1", {RUNNING}, JobState.CANCELLED, owner=None),
    ):
        with pytest.raises(LeaseLost):
            await late
    assert await store.jobs.get("job-1") == taken


async def test_a_claim_from_another_state_is_a_conflict(store: Store, submit: Submit) -> None:
    await submit()
    with pytest.raises(Conflict, match="pending") as caught:
        await store.jobs.claim("job-1", "d1", expected={RUNNING}, new=UNDOING, lease_s=1)
    assert not isinstance(caught.value, LeaseLost)


async def test_what_came_of_a_job_is_kept_by_its_holder_alone(store: Store, submit: Submit) -> None:
    await submit()
    await claim(store, "d1")
    await store.jobs.note("job-1", "d1", {"path": "/ü", "hit": True})
    with pytest.raises(LeaseLost):
        await store.jobs.note("job-1", "d2", {})
    ended = await store.jobs.transition("job-1", {RUNNING}, JobState.COMPLETED, owner="d1")
    assert ended.result == (await store.jobs.get("job-1")).result == {"path": "/ü", "hit": True}


async def test_a_record_keeps_the_step_and_the_times(store: Store, submit: Submit, clock: ManualClock) -> None:
    await submit()
    await claim(store, "d1")
    record = StepRecord(name="a", phase=StepPhase.DO, started_at=clock.now(), duration_s=1.5)
    await store.jobs.record("job-1", "d1", step="b", steps=[record])
    job = await store.jobs.get("job-1")
    assert (job.step, job.steps) == ("b", (record,))


@pytest.mark.parametrize("final", [JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED])
async def test_a_final_state_ends_the_lease_for_good(
    store: Store, submit: Submit, clock: ManualClock, final: JobState
) -> None:
    await submit()
    await claim(store, "d1")
    error = JobError(code=Code.TIMEOUT, brief="slow")
    ended = await store.jobs.transition("job-1", {RUNNING}, final, owner="d1", error=error)
    assert (ended.state, ended.lease_owner, ended.lease_until) == (final, None, None)
    assert (ended.finished_at, ended.error) == (clock.now(), error)
    with pytest.raises(LeaseLost):
        await store.jobs.renew("job-1", "d1", lease_s=LEASE_S)
    with pytest.raises(Conflict, match=str(final)):
        await claim(store, "d2")


async def test_a_transition_keeps_error_and_steps_it_is_not_given(store: Store, submit: Submit) -> None:
    await submit()
    await claim(store, "d1")
    error = JobError(code=Code.TIMEOUT, brief="slow")
    await store.jobs.transition("job-1", {RUNNING}, UNDOING, owner="d1", error=error)
    job = await store.jobs.transition("job-1", {UNDOING}, UNDOING, owner="d1")
    assert (job.error, job.lease_owner) == (error, "d1")


async def test_a_pending_job_is_cancelled_without_a_lease(store: Store, submit: Submit) -> None:
    await submit()
    job = await store.jobs.transition("job-1", {PENDING}, JobState.CANCELLED, owner=None)
    assert job.state == JobState.CANCELLED


async def test_a_transition_from_another_state_is_a_conflict(store: Store, submit: Submit) -> None:
    await submit()
    await claim(store, "d1")
    with pytest.raises(Conflict, match="running") as caught:
        await store.jobs.transition("job-1", {PENDING}, UNDOING, owner="d1")
    assert not isinstance(caught.value, LeaseLost)


async def test_claimable_are_those_without_a_valid_lease_oldest_first(
    store: Store, submit: Submit, clock: ManualClock
) -> None:
    for job_id in ("job-2", "job-1", "job-3", "job-4"):
        await submit(job_id)
    await claim(store, "d1")
    await store.jobs.transition("job-3", {PENDING}, JobState.CANCELLED, owner=None)
    states = {PENDING, RUNNING}
    assert [job.id for job in await store.jobs.claimable(states=states)] == ["job-2", "job-4"]
    clock.advance(LEASE_S)
    assert [job.id for job in await store.jobs.claimable(states=states)] == ["job-2", "job-1", "job-4"]
    assert [job.id for job in await store.jobs.claimable(states=states, limit=1)] == ["job-2"]
    assert [job.id for job in await store.jobs.claimable(states={RUNNING})] == ["job-1"]


async def test_jobs_are_listed_by_subject_and_state_in_pages(store: Store, submit: Submit) -> None:
    for number in range(4):
        await submit(f"job-{9 - number}", subject=f"sb-{number % 2}")
    await store.jobs.transition("job-9", {PENDING}, JobState.CANCELLED, owner=None)
    assert [job.id for job in (await store.jobs.list(subject="sb-0")).items] == ["job-9", "job-7"]
    assert [job.id for job in (await store.jobs.list(states={PENDING})).items] == ["job-8", "job-7", "job-6"]
    first = await store.jobs.list(page=PageRequest(limit=3))
    rest = await store.jobs.list(page=PageRequest(limit=3, cursor=first.next_cursor))
    assert [job.id for job in (*first.items, *rest.items)] == ["job-9", "job-8", "job-7", "job-6"]


async def test_what_is_not_there_cannot_be_read_or_changed(store: Store) -> None:
    for work in (
        store.jobs.get("job-1"),
        claim(store, "d1"),
        store.jobs.renew("job-1", "d1", lease_s=1),
        store.jobs.record("job-1", "d1", step="a", steps=()),
        store.jobs.transition("job-1", {RUNNING}, UNDOING, owner="d1"),
    ):
        with pytest.raises(NotFound, match="job-1"):
            await work


async def test_of_jobs_that_have_ended_the_last_ones_are_kept_for_a_while(store: Store, clock: ManualClock) -> None:
    ended = Job(id="job-0", kind="start", subject="sb-1", input={}, state=JobState.COMPLETED, created_at=clock.now())
    others = [("first", "create", "sb-1", JobState.COMPLETED), ("other", "start", "sb-2", JobState.FAILED)]
    unfinished = [("running", "start", "sb-1", RUNNING), ("undoing", "start", "sb-1", UNDOING)]
    for id_, kind, subject, state in [*others, *unfinished]:
        await store.jobs.create(dataclasses.replace(ended, id=id_, kind=kind, subject=subject, state=state))
    for number in range(JOBS_KEPT_PER_SUBJECT + 2):
        moment = clock.now() + timedelta(seconds=number)
        await store.jobs.create(dataclasses.replace(ended, id=f"job-{number}", created_at=moment))

    kept = {job.id for job in (await store.jobs.list(page=PageRequest(limit=100))).items}
    numbers = range(2, JOBS_KEPT_PER_SUBJECT + 2)
    assert kept == {"first", "other", "running", "undoing", *(f"job-{number}" for number in numbers)}

    clock.advance(JOBS_KEPT_FOR.total_seconds() + 3600)
    await store.jobs.create(dataclasses.replace(ended, id="new", created_at=clock.now()))
    kept = {job.id for job in (await store.jobs.list(page=PageRequest(limit=100))).items}
    assert kept == {"running", "undoing", "new"}


async def test_who_asks_for_the_next_job_gets_the_oldest_of_his_kinds_and_each_another(
    store: Store, submit: Submit, clock: ManualClock
) -> None:
    for job_id in ("job-2", "job-1"):
        await submit(job_id)
    kind = (await store.jobs.get("job-1")).kind

    async def claimed(owner: str, *kinds: str) -> str | None:
        states = {PENDING, RUNNING}
        job = await store.jobs.claim_next(owner, kinds=kinds, expected=states, new=RUNNING, lease_s=LEASE_S)
        return None if job is None else f"{job.id} {job.state} {job.attempt} {job.lease_owner}"

    assert await claimed("d1", "another kind") is None
    assert await claimed("d1", "another kind", kind) == "job-2 running 1 d1"
    assert await claimed("d2", kind) == "job-1 running 1 d2"
    assert await claimed("d2", kind) is None
    clock.advance(LEASE_S)
    assert await claimed("d3", kind) == "job-2 running 2 d3"


async def test_who_asks_for_the_next_job_is_not_given_those_he_is_at(
    store: Store, submit: Submit, clock: ManualClock
) -> None:
    for job_id in ("job-1", "job-2"):
        await submit(job_id)
    kinds = {(await store.jobs.get("job-1")).kind}

    async def claimed(owner: str, *spared: str) -> str | None:
        states = {PENDING, RUNNING}
        job = await store.jobs.claim_next(
            owner, kinds=kinds, expected=states, new=RUNNING, lease_s=LEASE_S, spared=spared
        )
        return None if job is None else f"{job.id} {job.attempt} {job.lease_owner}"

    assert await claimed("d1") == "job-1 1 d1"
    clock.advance(LEASE_S)  # the host stood still: the lease has run out, and d1 is still at it
    assert await claimed("d1", "job-1") == "job-2 1 d1"
    assert await claimed("d1", "job-1", "job-2") is None
    assert await claimed("d2") == "job-1 2 d2"


async def test_a_wish_for_a_jobs_end_is_seen_by_its_holder_alone_and_kept_with_it(
    store: Store, submit: Submit, clock: ManualClock
) -> None:
    await submit()
    await submit("job-2")
    await claim(store, "d1")
    asked = await store.jobs.ask_cancel("job-1")
    assert asked.cancel_asked_at == clock.now()
    first = clock.now()
    clock.advance(1)
    await store.jobs.ask_cancel("job-1")
    await store.jobs.ask_cancel("job-2")
    assert (await store.jobs.get("job-1")).cancel_asked_at == first
    assert [await store.jobs.cancels_asked(owner) for owner in ("d1", "d2")] == [["job-1"], []]
    clock.advance(LEASE_S)
    assert (await claim(store, "d2")).cancel_asked_at == first
    assert [await store.jobs.cancels_asked(owner) for owner in ("d1", "d2")] == [[], ["job-1"]]
    await store.jobs.transition("job-1", {RUNNING}, UNDOING, owner="d2")
    assert await store.jobs.cancels_asked("d2") == []


async def test_what_has_ended_or_is_not_there_cannot_be_wished_an_end(store: Store, submit: Submit) -> None:
    await submit()
    await store.jobs.transition("job-1", {PENDING}, JobState.COMPLETED, owner=None)
    with pytest.raises(Conflict, match="completed"):
        await store.jobs.ask_cancel("job-1")
    with pytest.raises(NotFound):
        await store.jobs.ask_cancel("job-9")
