"""GET /api/v1/events: what happens, as server-sent events."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import msgspec
import structlog
from starlette.types import ASGIApp

from hearth.api.event_operations import FOLLOW_EVENTS
from hearth.api.event_schemas import EventView, FollowEvents
from hearth.control.events import Event, Events, FellBehind, Reader, Wanted, kinds_of
from hearth.errors import InvalidInput
from hearth.server.resource import Call, bind
from hearth.server.sse import HEARTBEAT, HEARTBEAT_S, EventStream, frame

log = structlog.get_logger(__name__)

LAST_EVENT_ID = "last-event-id"


async def follow(call: Call[FollowEvents]) -> ASGIApp:
    asked, events = call.input, call.daemon.events
    after = call.request.headers.get(LAST_EVENT_ID) or asked.after
    subject = asked.subject
    if asked.sandbox is not None:
        if subject is not None:
            raise InvalidInput(
                "invalid subject",
                details="subject is given with sandbox, which is one",
                resolution="give one of them",
                field="subject",
            )
        subject = (await call.daemon.sandboxes.get(call.user, asked.sandbox)).id
    wanted = Wanted(owner=owner_of(call), kinds=kinds_of(asked.type), subject=subject)
    reader = events.reader(call.user.id, wanted, after=after)
    return EventStream(frames(events, reader, follow=asked.follow), reader.close)


async def frames(events: Events, reader: Reader, *, follow: bool) -> AsyncIterator[bytes]:
    """Give what a reader gets, framed, until the daemon stops, or the reader is too slow."""
    if not reader.whole:
        yield gap()
    while True:
        try:
            found = await reader.next(HEARTBEAT_S) if follow else reader.take()
        except FellBehind as error:
            log.info("a reader of events was cut off", reason=error.details)
            return
        if found:
            yield b"".join(framed(events, event) for event in found)
        if not follow or found is None:
            return
        if not found:
            yield HEARTBEAT


def owner_of(call: Call[Any]) -> str | None:
    """Tell whose events a caller sees: an administrator everybody's."""
    return None if call.user.admin else call.user.id


def framed(events: Events, event: Event) -> bytes:
    """Give an event as it travels."""
    place = events.place(event.number)
    return frame(event.kind, msgspec.json.encode(view_of(place, event)), place)


def view_of(place: str, event: Event) -> EventView:
    """Give an event as its owner sees it."""
    return EventView(
        id=place,
        type=event.kind,
        at=event.at,
        subject=event.subject,
        name=event.name,
        owner=event.owner,
        data=dict(event.data),
    )


def gap() -> bytes:
    """Give the word that events were lost before the next one; it is no place to come back to."""
    return frame("gap", msgspec.json.encode(EventView(id="", type="gap", at=datetime.now(UTC))))


BOUND = (bind(FOLLOW_EVENTS, follow),)
