"""What every store of webhooks promises: an outbox written with the jobs, in order, each entry in one hand alone."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest

from hearth.errors import NotFound
from hearth.host.clock import ManualClock
from hearth.model import Job, JobState
from hearth.store.base import Store
from hearth.store.webhook_store import HOOKS_KEPT_FOR
from hearth.webhooks import Delivery, Webhook

PENDING, RUNNING, UNDOING = JobState.PENDING, JobState.RUNNING, JobState.UNDOING
URL = "https://example.org/hook"
LEASE_S = 60.0


async def submit(store: Store, clock: ManualClock, job_id: str = "job-1", *, any_host: bool = True) -> Job:
    job = Job(
        id=job_id, kind="k", subject="vm", any_host=any_host, created_at=clock.now(), input={"correlation_id": "c"}
    )
    await store.jobs.create(job)
    return job


async def hook(
    store: Store,
    clock: ManualClock,
    hook_id: str = "hook-1",
    job_id: str = "job-1",
    url: str = URL,
    *,
    full: bool = False,
) -> None:
    await store.webhooks.add(Webhook(id=hook_id, job_id=job_id, url=url, with_progress=full, created_at=clock.now()))


async def go_through(store: Store, job_id: str = "job-1") -> None:
    await store.jobs.claim(job_id, "d1", expected={PENDING}, new=RUNNING, lease_s=30)
    await store.jobs.record(job_id, "d1", step="creating", steps=())
    await store.jobs.note(job_id, "d1", {"volume_path": "/v", "image_path": "/secret"})
    await store.jobs.transition(job_id, {RUNNING}, JobState.COMPLETED, owner="d1")


async def claim(store: Store, owner: str = "d1", *spared: str) -> Delivery | None:
    taken = await store.webhooks.claim(owner, spared=spared, lease_s=LEASE_S)
    return None if taken is None else taken[1]


async def test_the_end_of_a_job_is_told_with_what_came_of_it(store: Store, clock: ManualClock) -> None:
    await submit(store, clock)
    await hook(store, clock)
    await go_through(store)
    [(found, delivery)] = await store.webhooks.deliveries("job-1")
    assert (found.url, delivery.kind, delivery.number, delivery.attempts) == (URL, "job.completed", 0, 0)
    body = json.loads(delivery.body)
    assert (body["id"], body["type"]) == (delivery.id, "job.completed")
    data = body["data"]
    assert (data["status"], data["volume_path"], data["correlation_id"]) == ("completed", "/v", "c")
    assert "image_path" not in data
    assert await store.webhooks.pending() == 1


async def test_steps_are_told_in_their_order_to_who_wants_them(store: Store, clock: ManualClock) -> None:
    await submit(store, clock)
    await hook(store, clock, full=True)
    await go_through(store)
    told = await store.webhooks.deliveries("job-1")
    assert [(each.number, each.kind) for _, each in told] == [
        (0, "job.running"),
        (1, "job.progress"),
        (2, "job.completed"),
    ]
    assert json.loads(told[1][1].body)["data"]["stage"] == "creating"


async def test_of_a_job_that_has_ended_already_the_end_is_told_and_once(store: Store, clock: ManualClock) -> None:
    await submit(store, clock)
    await go_through(store)
    await hook(store, clock)
    await hook(store, clock, "hook-2")
    await hook(store, clock, "hook-3", url="https://example.org/other")
    assert [found.id for found, _ in await store.webhooks.deliveries("job-1")] == ["hook-1", "hook-3"]


async def test_of_a_job_that_was_taken_up_before_its_start_is_told_to_who_wants_to_know(
    store: Store, clock: ManualClock
) -> None:
    await submit(store, clock)
    await store.jobs.claim("job-1", "d1", expected={PENDING}, new=RUNNING, lease_s=30)
    await hook(store, clock, "hook-1")
    await hook(store, clock, "hook-2", url=f"{URL}/2", full=True)
    await hook(store, clock, "hook-3", url=f"{URL}/2", full=True)
    told = await store.webhooks.deliveries("job-1")
    assert [(delivery.webhook_id, delivery.number, delivery.kind) for _, delivery in told] == [
        ("hook-2", 0, "job.running")
    ]


async def test_nobody_is_told_of_undoing_and_of_no_job(store: Store, clock: ManualClock) -> None:
    await submit(store, clock)
    await hook(store, clock, full=True)
    await store.jobs.claim("job-1", "d1", expected={PENDING}, new=UNDOING, lease_s=30)
    await store.jobs.transition("job-1", {UNDOING}, JobState.CANCELLED, owner="d1")
    assert [each.kind for _, each in await store.webhooks.deliveries("job-1")] == ["job.cancelled"]
    with pytest.raises(NotFound):
        await hook(store, clock, "hook-2", "job-9")


async def test_what_a_dead_daemon_held_is_let_go_of_and_nothing_else(store: Store, clock: ManualClock) -> None:
    for number, owner in enumerate(("host-1/a", "host-1/b", "host-11/a", "host_1/a"), start=1):
        await submit(store, clock, f"job-{number}")
        await hook(store, clock, f"hook-{number}", f"job-{number}")
        await go_through(store, f"job-{number}")
        taken = await claim(store, owner)
        assert taken is not None and taken.webhook_id == f"hook-{number}"
    assert await store.webhooks.release("host-1/") == 2
    assert await store.webhooks.release("host-1/") == 0
    freed = [await claim(store, "host-1/c") for _ in range(3)]
    assert sorted(each.webhook_id for each in freed if each is not None) == ["hook-1", "hook-2"]


async def test_what_is_taken_is_nobody_elses_until_its_lease_has_run_out(store: Store, clock: ManualClock) -> None:
    await submit(store, clock)
    await hook(store, clock)
    await go_through(store)
    first = await claim(store, "d1")
    assert first is not None and first.lease_owner == "d1"
    assert await claim(store, "d2") is None
    clock.advance(LEASE_S)
    again = await claim(store, "d2")
    assert again is not None and again.id == first.id
    assert not await store.webhooks.settle(first.id, "d1", status=200, error=None, next_at=None)
    assert await store.webhooks.settle(first.id, "d2", status=200, error=None, next_at=None)
    [(_, over)] = await store.webhooks.deliveries("job-1")
    assert (over.status, over.attempts, over.ended_at, over.lease_owner) == (200, 1, clock.now(), None)
    assert await store.webhooks.pending() == 0


async def test_one_that_failed_comes_again_when_it_is_due_and_holds_up_those_behind_it(
    store: Store, clock: ManualClock
) -> None:
    await submit(store, clock)
    await hook(store, clock, full=True)
    await submit(store, clock, "job-2")
    await hook(store, clock, "hook-2", "job-2", "https://example.net/hook")
    await go_through(store)
    first = await claim(store)
    assert first is not None and first.number == 0
    due_at = clock.now() + timedelta(seconds=5)
    assert await store.webhooks.settle(first.id, "d1", status=500, error="HTTP 500", next_at=due_at)
    assert await claim(store) is None
    await store.jobs.transition("job-2", {PENDING}, JobState.CANCELLED, owner=None)
    other = await claim(store)
    assert other is not None and other.webhook_id == "hook-2"
    clock.advance(5)
    again = await claim(store)
    assert again is not None and (again.id, again.attempts, again.error) == (first.id, 1, "HTTP 500")


async def test_an_origin_that_is_spared_waits_and_a_hook_that_is_given_up_gets_nothing_more(
    store: Store, clock: ManualClock
) -> None:
    await submit(store, clock)
    await hook(store, clock, full=True)
    await store.jobs.claim("job-1", "d1", expected={PENDING}, new=RUNNING, lease_s=30)
    assert await claim(store, "d1", "https://example.org:443") is None
    first = await claim(store, "d1", "https://example.org:80")
    assert first is not None
    await store.jobs.record("job-1", "d1", step="creating", steps=())
    await store.webhooks.settle(first.id, "d1", status=410, error="gone", next_at=None, disable=True)
    await store.jobs.transition("job-1", {RUNNING}, JobState.COMPLETED, owner="d1")
    told = await store.webhooks.deliveries("job-1")
    assert [each.ended_at is not None for _, each in told] == [True, True]
    assert told[0][0].disabled_at is not None
    assert await claim(store) is None


async def test_hooks_are_forgotten_in_the_end(store: Store, clock: ManualClock) -> None:
    await submit(store, clock)
    await hook(store, clock)
    await go_through(store)
    clock.advance(HOOKS_KEPT_FOR.total_seconds())
    await submit(store, clock, "job-2")
    await hook(store, clock, "hook-2", "job-2")
    assert list(await store.webhooks.deliveries("job-1")) == []
