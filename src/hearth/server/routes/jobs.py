"""/api/v1/jobs, /status and /cancel: what the daemon does for somebody."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import msgspec
from starlette.types import ASGIApp

from hearth.api.event_operations import CANCEL_JOB, FOLLOW_JOB, GET_JOB, LIST_JOBS
from hearth.api.event_schemas import (
    CancelledJob,
    EventView,
    JobList,
    JobView,
    ListJobs,
)
from hearth.api.schemas import Nothing
from hearth.control.events import FellBehind, Reader, Wanted
from hearth.errors import Unavailable
from hearth.model import Job, JobState
from hearth.server.job_views import STATUS, job_view
from hearth.server.resource import Call, bind
from hearth.server.routes.events import framed, owner_of
from hearth.server.sse import HEARTBEAT, HEARTBEAT_S, EventStream, frame
from hearth.store.base import PageRequest


async def list_jobs(call: Call[ListJobs]) -> JobList:
    asked = call.input
    states = [state for state, status in STATUS.items() if status in asked.status]
    page = await call.daemon.jobs.list(
        call.user, states=states, page=PageRequest(limit=asked.limit, cursor=asked.cursor)
    )
    return JobList(items=[_view(call, job) for job in page.items], next_cursor=page.next_cursor)


async def get(call: Call[Nothing]) -> JobView:
    job = await call.daemon.jobs.get(call.user, call.ref)
    return job_view(call.daemon, job, queue_position=await call.daemon.provisioner.position(job))


async def cancel(call: Call[Nothing]) -> CancelledJob:
    return CancelledJob(job_id=(await call.daemon.jobs.cancel(call.user, call.ref)).id)


async def follow(call: Call[Nothing]) -> ASGIApp:
    await call.daemon.jobs.get(call.user, call.ref)
    # Read first, then asked how it is: no change is missed in between.
    reader = call.daemon.events.reader(call.user.id, Wanted(owner=owner_of(call), subject=call.ref))
    return EventStream(_frames(call, reader), reader.close)


async def _frames(call: Call[Nothing], reader: Reader) -> AsyncIterator[bytes]:
    job = await call.daemon.jobs.get(call.user, call.ref)
    yield _state(call, job)
    ended, seen, silent_s = job.state.is_final, _look_of(call, job), 0.0
    pause_s = LOOK_EVERY_S if job.any_host else HEARTBEAT_S
    while not ended:
        try:
            found = await reader.next(pause_s)
        except FellBehind:
            return
        if found is None:
            return
        frames = b"".join(framed(call.daemon.events, event) for event in found)
        ended = any(event.kind.removeprefix("job.") in _FINAL for event in found)
        if not found and job.any_host:  # another daemon may be at work on it, whose events are not told here
            with contextlib.suppress(Unavailable):  # a database that is away: the next look tells
                job = await call.daemon.jobs.get(call.user, call.ref)
            if _look_of(call, job) != seen:
                seen, ended, frames = _look_of(call, job), job.state.is_final, _state(call, job)
        silent_s = 0.0 if frames else silent_s + pause_s
        if silent_s >= HEARTBEAT_S:
            silent_s, frames = 0.0, HEARTBEAT
        if frames:
            yield frames


def _look_of(call: Call[Nothing], job: Job) -> tuple[object, ...]:
    at = call.daemon.jobs.progress(job)
    return job.state, job.step, job.attempt, at.stage, at.bytes_processed


LOOK_EVERY_S = 1.0
"""How a job is that any host may do."""
_FINAL = frozenset(state.value for state in JobState if state.is_final)


def _state(call: Call[Nothing], job: Job) -> bytes:
    """Give how a job is as its first event."""
    event = EventView(
        id="",
        type=f"job.{job.state.value}",
        at=job.finished_at or job.started_at or job.created_at,
        subject=job.id,
        name=job.kind,
        owner=job.owner,
        data=msgspec.to_builtins(_view(call, job)),
    )
    return frame(event.type, msgspec.json.encode(event))


def _view(call: Call[ListJobs] | Call[Nothing], job: Job) -> JobView:
    return job_view(call.daemon, job)


BOUND = (bind(LIST_JOBS, list_jobs), bind(GET_JOB, get), bind(FOLLOW_JOB, follow), bind(CANCEL_JOB, cancel))
