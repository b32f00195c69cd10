"""What happens, as it happens; and jobs: what the daemon does for somebody, and how far that is."""

from __future__ import annotations

from typing import Any

from hearth.api.event_schemas import CancelledJob, EventView, FollowEvents, JobList, JobView, ListJobs
from hearth.api.limits import PREFIX
from hearth.api.operation import Operation
from hearth.api.schemas import Nothing
from hearth.errors import Code

FOLLOW_EVENTS = Operation(
    name="follow_events",
    method="GET",
    path=f"{PREFIX}/events",
    summary="Tell what happens to the caller's sandboxes, checkpoints, volumes, ports and jobs, as it happens.",
    takes=FollowEvents,
    gives=Nothing,
    errors=(Code.NOT_FOUND,),
    events=EventView,
)
LIST_JOBS = Operation(
    name="list_jobs",
    method="GET",
    path=f"{PREFIX}/jobs",
    summary="List the caller's jobs, oldest first, a page at a time.",
    takes=ListJobs,
    gives=JobList,
)
GET_JOB = Operation(
    name="get_job",
    method="GET",
    path=f"{PREFIX}/status/{{ref}}",
    summary="Show a job: how far it is, or how it ended.",
    takes=Nothing,
    gives=JobView,
    errors=(Code.NOT_FOUND,),
)
FOLLOW_JOB = Operation(
    name="follow_job",
    method="GET",
    path=f"{PREFIX}/jobs/{{ref}}/events",
    summary="Tell how a job goes on, beginning with how it is; ends with the job.",
    takes=Nothing,
    gives=Nothing,
    errors=(Code.NOT_FOUND,),
    events=EventView,
)
CANCEL_JOB = Operation(
    name="cancel_job",
    method="DELETE",
    path=f"{PREFIX}/cancel/{{ref}}",
    summary="End a job that is under way and undo what it did; 400 when it has ended already.",
    takes=Nothing,
    gives=CancelledJob,
    errors=(Code.NOT_FOUND, Code.CONFLICT, Code.TIMEOUT),
)

OPERATIONS: tuple[Operation[Any, Any], ...] = (FOLLOW_EVENTS, LIST_JOBS, GET_JOB, FOLLOW_JOB, CANCEL_JOB)
