"""What happens, and jobs, for the asynchronous client: ``async for event in client.events.follow()``."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from typing import Protocol, TypeVar, Unpack

from hearth.api.event_schemas import EventView, JobStatus, JobView
from hearth.errors import TimedOut, Unavailable
from hearth.sdk import event_calls
from hearth.sdk.async_transport import AsyncTransport
from hearth.sdk.call import Call, read_problem
from hearth.sdk.event_calls import RETRY_FOR_S, RETRY_S, EventOptions, EventReader

Value = TypeVar("Value")


class AsyncCaller(Protocol):
    """What carries calls out."""

    async def call(self, call: Call[Value]) -> Value: ...


class AsyncEvents:
    """Events and jobs, each user's own; an administrator's are everybody's."""

    def __init__(self, client: AsyncCaller, transport: AsyncTransport) -> None:
        self._client = client
        self._transport = transport

    async def follow(self, **options: Unpack[EventOptions]) -> AsyncIterator[EventView]:
        """Give events as they come, for ever unless ``follow`` is False; a lost connection is made anew.

        What came meanwhile follows then; where some of it is gone, an event of type ``gap`` says so.

        Raises:
            Unavailable, TimedOut: the daemon was gone for a minute.

        >>> types = {event.type async for event in client.events.follow(after="oldest", follow=False)}
        >>> "sandbox.running" in types
        True
        """
        reader = EventReader(options.get("after"))
        lost_s: float | None = None
        while True:
            options["after"] = reader.last
            try:
                async with self._transport.open(event_calls.follow(options)) as incoming:
                    if incoming.reader.status != 200:
                        raise read_problem(await incoming.whole())
                    async for data in incoming:
                        lost_s = None
                        for event in reader.feed(data):
                            yield event
                if not options.get("follow", True):
                    return
            except (Unavailable, TimedOut):
                if lost_s is not None and time.monotonic() - lost_s > RETRY_FOR_S:
                    raise
            lost_s = lost_s or time.monotonic()
            reader.restart()
            await asyncio.sleep(RETRY_S)

    async def jobs(self, *statuses: JobStatus) -> Sequence[JobView]:
        """Give all jobs, or those with one of these statuses, oldest first.

        >>> {job.status for job in await client.events.jobs("completed")}
        {'completed'}
        """
        page = await self._client.call(event_calls.jobs(list(statuses), None))
        found = [*page.items]
        while page.next_cursor is not None:
            page = await self._client.call(event_calls.jobs(list(statuses), page.next_cursor))
            found += page.items
        return found

    async def job(self, ref: str) -> JobView:
        """Give one job.

        >>> first = (await client.events.jobs("completed"))[0]
        >>> (await client.events.job(first.job_id)).status
        'completed'
        """
        return await self._client.call(event_calls.job(ref))

    async def cancel(self, ref: str) -> None:
        """End a job that is under way and undo what it did.

        >>> first = (await client.events.jobs("completed"))[0]
        >>> await client.events.cancel(first.job_id)
        Traceback (most recent call last):
        hearth.errors.InvalidInput: ...
        """
        await self._client.call(event_calls.cancel(ref))
