"""/api/v1/jobs, /status and /cancel: what the daemon does for somebody."""

from __future__ import annotations

from collections.abc import AsyncIterator

import msgspec
from starlette.types import ASGIApp

from hearth.api.event_operations import CANCEL_JOB, FOLLOW_JOB, GET_JOB, LIST_JOBS
from hearth.api.event_schemas import (
    CancelledJob,
    EventView,
    JobList,
    JobProblem,
    JobProgress,
    JobStatus,
    JobView,
    ListJobs,
)
from hearth.api.schemas import Nothing, StepTiming
from hearth.control.events import FellBehind, Reader, Wanted
from hearth.model import Job, JobState
from hearth.server.resource import Call, bind
from hearth.server.routes.events import framed, owner_of
from hearth.server.sse import HEARTBEAT, HEARTBEAT_S, EventStream, frame
from hearth.store.base import PageRequest

STATUS: dict[JobState, JobStatus] = {
    JobState.PENDING: "pending",
    JobState.RUNNING: "running",
    JobState.UNDOING: "running",
    JobState.COMPLETED: "completed",
    JobState.FAILED: "failed",
    JobState.CANCELLED: "cancelled",
}


async def list_jobs(call: Call[ListJobs]) -> JobList:
    asked = call.input
    states = [state for state, status in STATUS.items() if status in asked.status]
    page = await call.daemon.jobs.list(
        call.user, states=states, page=PageRequest(limit=asked.limit, cursor=asked.cursor)
    )
    return JobList(items=[_view(call, job) for job in page.items], next_cursor=page.next_cursor)


async def get(call: Call[Nothing]) -> JobView:
    return _view(call, await call.daemon.jobs.get(call.user, call.ref))


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
    ended = job.state.is_final
    while not ended:
        try:
            found = await reader.next(HEARTBEAT_S)
        except FellBehind:
            return
        if found is None:
            return
        ended = any(event.kind.removeprefix("job.") in _FINAL for event in found)
        yield b"".join(framed(call.daemon.events, event) for event in found) or HEARTBEAT


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
    progress = call.daemon.jobs.progress(job)
    error = job.error
    return JobView(
        job_id=job.id,
        kind=job.kind,
        subject=job.subject,
        status=STATUS[job.state],
        progress=JobProgress(stage=progress.stage, percent=progress.percent),
        attempts=job.attempt,
        created_at=job.created_at,
        started_at=job.started_at,
        finished_at=job.finished_at,
        error=None
        if error is None
        else JobProblem(error=error.brief, code=error.code.value, details=error.details, resolution=error.resolution),
        steps=[StepTiming(name=each.name, duration_ms=round(each.duration_s * 1000, 3)) for each in job.steps],
    )


BOUND = (bind(LIST_JOBS, list_jobs), bind(GET_JOB, get), bind(FOLLOW_JOB, follow), bind(CANCEL_JOB, cancel))
