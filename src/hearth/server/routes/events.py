"""GET /api/v1/events: what happens, as server-sent events."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import msgspec
import structlog
from starlette.types import ASGIApp

from hearth.api.event_operations import FOLLOW_EVENTS
from hearth.api.event_schemas import EventView, FollowEvents
from hearth.control.events import Event, Events, FellBehind, Reader, Wanted, kinds_of
from hearth.control.users import MYSELF
from hearth.errors import InvalidInput, NotFound
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
    return EventStream(frames(call, events, reader, follow=asked.follow), reader.close)


async def frames(call: Call[Any], events: Events, reader: Reader, *, follow: bool) -> AsyncIterator[bytes]:
    """Give what a reader gets, framed, until the daemon stops, the key ends, or the reader is too slow."""
    if not reader.whole:
        yield gap()
    checked_s = time.monotonic()
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
        if time.monotonic() - checked_s >= HEARTBEAT_S:
            if not await _may_still_read(call):
                return
            checked_s = time.monotonic()
        if not found:
            yield HEARTBEAT


async def _may_still_read(call: Call[Any]) -> bool:
    """Tell whether the caller would still be let in to the same: keys end, and users may go or lose their rights."""
    caller, users = call.caller, call.daemon.users
    try:
        user = await users.get(caller.user, MYSELF)
        keys = await users.keys(user, MYSELF)
    except NotFound:
        return False
    known = caller.key is None or any(key.id == caller.key.id and key.is_valid(datetime.now(UTC)) for key in keys)
    return known and user.admin == caller.user.admin


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
