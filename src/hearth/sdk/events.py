# Made of async_events.py by 'make twins': change that.
"""What happens, and jobs, for the blocking client: ``for event in client.events.follow()``."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Protocol, TypeVar, Unpack

from hearth.api.event_schemas import EventView, JobStatus, JobView
from hearth.errors import TimedOut, Unavailable
from hearth.sdk import event_calls
from hearth.sdk.call import Call, read_problem
from hearth.sdk.event_calls import RETRY_FOR_S, RETRY_S, EventOptions, EventReader
from hearth.sdk.transport import Transport

Value = TypeVar("Value")


class Caller(Protocol):
    """What carries calls out."""

    def call(self, call: Call[Value]) -> Value: ...


class Events:
    """Events and jobs, each user's own; an administrator's are everybody's."""

    def __init__(self, client: Caller, transport: Transport) -> None:
        self._client = client
        self._transport = transport

    def follow(self, **options: Unpack[EventOptions]) -> Iterator[EventView]:
        """Give events as they come, for ever unless ``follow`` is False; a lost connection is made anew.

        What came meanwhile follows then; where some of it is gone, an event of type ``gap`` says so.

        Raises:
            Unavailable, TimedOut: the daemon was gone for a minute.

        >>> types = {event.type for event in client.events.follow(after="oldest", follow=False)}
        >>> "sandbox.running" in types
        True
        """
        reader = EventReader(options.get("after"))
        lost_s: float | None = None
        while True:
            options["after"] = reader.last
            try:
                with self._transport.open(event_calls.follow(options)) as incoming:
                    if incoming.reader.status != 200:
                        raise read_problem(incoming.whole())
                    for data in incoming:
                        lost_s = None
                        yield from reader.feed(data)
                if not options.get("follow", True):
                    return
            except (Unavailable, TimedOut):
                if lost_s is not None and time.monotonic() - lost_s > RETRY_FOR_S:
                    raise
            lost_s = lost_s or time.monotonic()
            reader.restart()
            time.sleep(RETRY_S)

    def jobs(self, *statuses: JobStatus) -> Sequence[JobView]:
        """Give all jobs, or those with one of these statuses, oldest first.

        >>> {job.status for job in client.events.jobs("completed")}
        {'completed'}
        """
        page = self._client.call(event_calls.jobs(list(statuses), None))
        found = [*page.items]
        while page.next_cursor is not None:
            page = self._client.call(event_calls.jobs(list(statuses), page.next_cursor))
            found += page.items
        return found

    def job(self, ref: str) -> JobView:
        """Give one job.

        >>> first = client.events.jobs("completed")[0]
        >>> client.events.job(first.job_id).status
        'completed'
        """
        return self._client.call(event_calls.job(ref))

    def cancel(self, ref: str) -> None:
        """End a job that is under way and undo what it did.

        >>> first = client.events.jobs("completed")[0]
        >>> client.events.cancel(first.job_id)
        Traceback (most recent call last):
        hearth.errors.InvalidInput: ...
        """
        self._client.call(event_calls.cancel(ref))
