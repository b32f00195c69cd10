"""Bodies of events and jobs. The conventions are those of ``schemas``."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from hearth.api.limits import DEFAULT_LIST_LIMIT, MAX_LIST_LIMIT
from hearth.api.patterns import EVENT_KIND
from hearth.api.schemas import StepTiming

MAX_KINDS = 32
EventKind = Annotated[
    str,
    Meta(
        pattern=EVENT_KIND,
        max_length=64,
        description="A kind of event, such as sandbox.running, or a noun for all of its kinds, such as sandbox.",
    ),
]
JobStatus = Literal["pending", "running", "completed", "failed", "cancelled"]


class FollowEvents(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Which events; several ``type`` mean any of them.

    ``sandbox`` is one sandbox, by id or name, and ``subject`` the id of anything. ``after`` is the id of the last event
    seen, as the header Last-Event-ID, which comes before it; ``oldest`` begins with the oldest there is. Without
    ``follow`` the stream ends with what there is.
    """

    type: Annotated[list[EventKind], Meta(max_length=MAX_KINDS)] = []
    sandbox: Annotated[str, Meta(min_length=1, max_length=128)] | None = None
    subject: Annotated[str, Meta(min_length=1, max_length=128)] | None = None
    after: Annotated[str, Meta(min_length=1, max_length=128)] | None = None
    follow: bool = True


class EventView(Struct, frozen=True, kw_only=True):
    """Something that happened to ``subject``, an id that ``name`` stands for.

    ``type`` is a noun and what became of it. ``data`` depends on the type. Of type ``gap``: events that came before the
    next one were lost, since they are not kept for ever, or the daemon was started anew.
    """

    id: str
    type: str
    at: datetime
    subject: str = ""
    name: str = ""
    owner: str | None = None
    data: dict[str, Any] = {}


class ListJobs(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Query of the list of jobs; several ``status`` mean any of them."""

    status: Annotated[list[JobStatus], Meta(max_length=8)] = []
    limit: Annotated[int, Meta(ge=1, le=MAX_LIST_LIMIT)] = DEFAULT_LIST_LIMIT
    cursor: Annotated[str, Meta(max_length=512)] | None = None


class JobProgress(Struct, frozen=True, kw_only=True):
    """The step a job is at, and how much is done, in percent, where that is known.

    A step that counts bytes tells how many are done of how many, how many a second, and the seconds that are left.
    """

    stage: str | None = None
    percent: float | None = None
    bytes_processed: int | None = None
    bytes_total: int | None = None
    rate_bps: float | None = None
    eta_s: float | None = None


class JobProblem(Struct, frozen=True, kw_only=True):
    """Why a job did not complete; ``code`` is of the closed list of problems, ``field`` the input at fault."""

    error: str
    code: str
    details: str = ""
    resolution: str = ""
    field: str | None = None


class JobView(Struct, frozen=True, kw_only=True):
    """What the daemon does for somebody. ``subject`` is the id of what it is done to, such as a sandbox.

    A job whose work is being undone is ``running`` and has its ``error`` already. ``attempts`` counts how often a
    daemon took it up; ``steps`` are those that ended, in the order of time, with those that were undone.

    Of a job that fills a volume also: ``correlation_id`` as it was given, ``queue_position`` while it waits, and
    when it has completed where image and volume are, and whether the image was there already.
    """

    job_id: str
    kind: str
    subject: str
    status: JobStatus
    progress: JobProgress
    attempts: int
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    error: JobProblem | None = None
    steps: list[StepTiming] = []
    correlation_id: str | None = None
    queue_position: int | None = None
    cache_hit: bool | None = None
    image_path: str | None = None
    volume_path: str | None = None
    host: str | None = None
    grown: str | None = None


class JobList(Struct, frozen=True, kw_only=True):
    """One page; ``next_cursor`` is absent on the last one."""

    items: list[JobView]
    next_cursor: str | None = None


class CancelledJob(Struct, frozen=True, kw_only=True):
    """The job has ended, and nothing is left of its work."""

    job_id: str
    status: Literal["cancelled"] = "cancelled"
