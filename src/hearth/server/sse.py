"""Server-sent events (the WHATWG's event stream): a stream with heartbeats that lets nobody hold it up."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import structlog
from starlette.types import Receive, Scope, Send

from hearth.api.limits import SSE
from hearth.server.disconnect import unless_gone
from hearth.server.proxy.door import exchange_of
from hearth.server.standing import KeyEnded, while_allowed

log = structlog.get_logger(__name__)

HEARTBEAT_S = 15.0
"""Proxies give a silent connection up after 30 to 100 s."""
STALLED_S = 20.0
"""A client that takes nothing for so long is cut off; it comes back and names the last event it has seen."""
RETRY = b"retry: 2000\n\n"
HEARTBEAT = b": nothing new\n\n"


class EventStream:
    """The answer.

    Args:
        frames: its pieces, of which each is a heartbeat or whole events.
        end: called when it is over, however it ends, and whether or not it began.
        stalled_s: how long a client may take nothing.
    """

    def __init__(self, frames: AsyncIterator[bytes], end: Callable[[], None], *, stalled_s: float = STALLED_S) -> None:
        self._frames = frames
        self._end = end
        self._stalled_s = stalled_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await unless_gone(receive, self._answer(scope, send))
        finally:
            self._end()

    async def _answer(self, scope: Scope, send: Send) -> None:
        headers = [
            (b"content-type", SSE.encode()),
            (b"cache-control", b"no-store"),
            (b"x-accel-buffering", b"no"),  # nginx holds back what it forwards unless it is told not to
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        if scope["method"] == "HEAD":
            await send({"type": "http.response.body", "body": b"", "more_body": False})
            return
        try:
            async with asyncio.timeout(None) as limit:

                async def write(body: bytes, *, more: bool) -> None:
                    limit.reschedule(asyncio.get_running_loop().time() + self._stalled_s)
                    await send({"type": "http.response.body", "body": body, "more_body": more})
                    limit.reschedule(None)

                async def write_frames() -> None:
                    await write(RETRY, more=True)
                    async for frame in self._frames:
                        await write(frame, more=True)

                with contextlib.suppress(KeyEnded):  # coming back tells
                    await while_allowed(scope, write_frames())
                await write(b"", more=False)
        except TimeoutError:
            log.info("a reader of events was cut off", reason=f"it took nothing for {self._stalled_s:g} s")
            exchange_of(scope).transport.abort()


def frame(kind: str, data: bytes, event_id: str | None = None) -> bytes:
    """Give one event; ``data`` holds no newline."""
    identity = b"" if event_id is None else b"id: %b\n" % event_id.encode()
    return identity + b"event: %b\ndata: %b\n\n" % (kind.encode(), data)
