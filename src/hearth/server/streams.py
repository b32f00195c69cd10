"""A command's output as lines of NDJSON: the last is always ``exit`` or ``error``, or ``running`` if not followed."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator, Sequence

import msgspec
import structlog
from starlette.types import Receive, Scope, Send

from hearth.api.limits import EXEC_ID_HEADER, NDJSON
from hearth.api.problems import event_of, internal_error
from hearth.api.schemas import Event, ExitEvent, GapEvent, RunningEvent
from hearth.control.exec_follow import Gap
from hearth.control.exec_kept import KeptRun
from hearth.control.execs import Following
from hearth.errors import HearthError, Unavailable
from hearth.execs import Exec, ExecState
from hearth.server.disconnect import unless_gone
from hearth.server.middleware.problems import note
from hearth.server.outputs import OutputEncoder
from hearth.server.standing import while_allowed

log = structlog.get_logger(__name__)

LAST_LINE_S = 5.0
"""How long the caller has to take the line that tells of an error; the command is gone by then."""


class Lines:
    """An answer in lines; its head goes out with the first ``send``, until then errors are problems."""

    def __init__(self, request_id: str) -> None:
        self.request_id = request_id
        self._begun = False
        self._send: Send

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._send = send
        await unless_gone(receive, self._answer(scope))

    async def events(self) -> None:
        """Send them all, the last one with ``end``."""
        raise NotImplementedError

    async def begin(self, exec_id: str) -> None:
        """Send the head."""
        self._begun = True
        headers = [
            (b"content-type", NDJSON.encode()),
            (b"cache-control", b"no-store"),
            (EXEC_ID_HEADER.lower().encode(), exec_id.encode()),
        ]
        await self._send({"type": "http.response.start", "status": 200, "headers": headers})

    async def send(self, events: Sequence[Event]) -> None:
        """Send lines; waits while the caller does not take them."""
        if events:
            await self._send({"type": "http.response.body", "body": b"".join(map(line_of, events)), "more_body": True})

    async def end(self, events: Sequence[Event]) -> None:
        """Send the last lines."""
        await self._send({"type": "http.response.body", "body": b"".join(map(line_of, events)), "more_body": False})

    async def _answer(self, scope: Scope) -> None:
        try:
            await while_allowed(scope, self.events())
        except HearthError as error:
            if not self._begun:
                raise
            note(error)
            await self._last(error)
        except asyncio.CancelledError:
            # The caller left, then nobody reads this; or the daemon stops and the caller shall know.
            if self._begun:
                await self._last(stopping())
            raise
        except Exception:
            if not self._begun:
                raise
            log.exception("unexpected error in a stream")
            await self._last(internal_error(self.request_id))

    async def _last(self, error: HearthError) -> None:
        with contextlib.suppress(TimeoutError):  # a caller who does not read is cut off
            async with asyncio.timeout(LAST_LINE_S):
                await self._send(
                    {
                        "type": "http.response.body",
                        "body": line_of(event_of(error, self.request_id)),
                        "more_body": False,
                    }
                )


Opening = Callable[[], Awaitable[Following]]


class OutputLines(Lines):
    """The output of a command from a cursor on; with ``attaches`` the command lives for whoever reads this."""

    def __init__(self, opening: Opening, request_id: str, *, attaches: bool, waits: bool, cursors: bool) -> None:
        """``opening`` gives what is followed; what it raises is a problem."""
        super().__init__(request_id)
        self._opening = opening
        self._attaches = attaches
        self._waits = waits
        self._cursors = cursors

    async def events(self) -> None:
        following = await self._opening()
        client = following.run if self._attaches and isinstance(following.run, KeptRun) else None
        encoder, follower = OutputEncoder(), following.follower
        with attended(client, following):
            await self.begin(following.found.id)
            async with contextlib.aclosing(follower.pieces(waits=self._waits)) as pieces:
                async for piece in pieces:
                    if isinstance(piece, Gap):
                        await self.send([*encoder.flush(self._cursor(piece.position)), gap_event(piece)])
                        continue
                    await self.send(encoder.feed(piece.stream, piece.data, end=self._cursor(piece.end)))
                    if client is not None:
                        client.progressed()
            rest = encoder.flush(self._cursor(follower.position))
            await self.end([*rest, last_event(following.exec, self.request_id, waits=self._waits)])

    def _cursor(self, position: int) -> int | None:
        return position if self._cursors else None


@contextlib.contextmanager
def attended(client: KeptRun | None, following: Following) -> Iterator[None]:
    """Be a command's client for the length of the context, where there is one to be."""
    if client is None:
        yield
        return
    client.attach(following.follower)
    try:
        yield
    finally:
        client.leave(following.follower)


def gap_event(gap: Gap) -> GapEvent:
    """Give the line that tells of lost output."""
    return GapEvent(start=gap.position, cursor=gap.end)


def last_event(found: Exec, request_id: str, *, waits: bool) -> Event:
    """Give the last line: how a command ended, or that it has not."""
    if found.state is ExecState.EXITED and found.exit_code is not None:
        return ExitEvent(exit_code=found.exit_code)
    if found.failure is not None:
        return event_of(found.failure.error(), request_id)
    return event_of(stopping(), request_id) if waits else RunningEvent(cursor=found.output_bytes)


def stopping() -> HearthError:
    """Give the error for those whom the daemon's end cuts off."""
    return Unavailable("the daemon is stopping", resolution="run the command again later")


def line_of(event: Event) -> bytes:
    """Give an event as one line."""
    return msgspec.json.encode(event) + b"\n"
