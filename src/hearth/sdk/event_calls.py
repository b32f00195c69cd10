"""The operations on events and jobs as values, and how a stream of server-sent events is taken apart; no I/O."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypedDict

import msgspec

from hearth.api.event_operations import CANCEL_JOB, FOLLOW_EVENTS, GET_JOB, LIST_JOBS
from hearth.api.event_schemas import CancelledJob, EventView, FollowEvents, JobList, JobStatus, JobView, ListJobs
from hearth.api.limits import MAX_LIST_LIMIT, SSE
from hearth.api.schemas import Nothing
from hearth.errors import Unavailable
from hearth.sdk.call import LONG_S, Call, call_of, checked
from hearth.sdk.http1 import HttpRequest

SILENCE_S = 50.0
"""A daemon that is there says something every 15 s."""
RETRY_FOR_S = 60.0
"""How long a stream that was lost is asked for again: longer than a restart takes."""
RETRY_S = 0.5
JOB = "job"


class EventOptions(TypedDict, total=False):
    """Which events: ``types`` such as sandbox.running, or sandbox for all of them; of one ``sandbox`` or ``subject``.

    ``after`` is the id of the last event seen, or oldest. Without ``follow`` the stream ends with what there is.
    """

    types: list[str]
    sandbox: str | None
    subject: str | None
    after: str | None
    follow: bool


def follow(options: EventOptions) -> HttpRequest:
    values = {"type" if name == "types" else name: value for name, value in options.items()}
    asked = checked(FollowEvents, values)
    return call_of(FOLLOW_EVENTS, asked, timeout_s=SILENCE_S, accept=SSE).request


def jobs(statuses: list[JobStatus], cursor: str | None) -> Call[JobList]:
    return call_of(LIST_JOBS, checked(ListJobs, {"status": statuses, "cursor": cursor, "limit": MAX_LIST_LIMIT}))


def job(ref: str) -> Call[JobView]:
    return call_of(GET_JOB, Nothing(), ref=ref, what=JOB)


def cancel(ref: str) -> Call[CancelledJob]:
    return call_of(CANCEL_JOB, Nothing(), ref=ref, what=JOB, timeout_s=LONG_S)


class EventReader:
    """Takes bytes and gives events; ``last`` is the id of the latest one that has one."""

    def __init__(self, last: str | None = None) -> None:
        self.last = last
        self._pending = b""

    def feed(self, data: bytes) -> Iterator[EventView]:
        """Give the events that are whole now.

        Raises:
            Unavailable: what came is none.
        """
        *whole, self._pending = (self._pending + data).split(b"\n\n")
        for block in whole:
            fields = dict(line.partition(b": ")[::2] for line in block.split(b"\n"))
            if b"data" not in fields:
                continue  # a heartbeat, or how long to wait before coming back
            try:
                event = msgspec.json.decode(fields[b"data"], type=EventView)
            except msgspec.DecodeError as error:
                raise Unavailable("what answered is not a hearth daemon", details="it sent no event") from error
            self.last = event.id or self.last
            yield event

    def restart(self) -> None:
        """Forget what came half: the connection is lost."""
        self._pending = b""
