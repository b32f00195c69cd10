"""Bodies of any size on their way out: a client gets the whole, or sees that it did not."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import structlog
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from hearth.errors import GuestFailed, HearthError
from hearth.guest.transfer import Download
from hearth.server.disconnect import unless_gone
from hearth.server.middleware.problems import note
from hearth.server.proxy.door import exchange_of
from hearth.server.standing import while_allowed

log = structlog.get_logger(__name__)

STALL_S = 120.0
"""How long a client may take nothing of what is there for it."""
Header = tuple[bytes, bytes]


@dataclass(frozen=True, kw_only=True)
class Opened:
    """What is about to be sent. ``length`` in bytes, None where only its end tells."""

    download: Download
    media_type: str
    status: int = 200
    headers: Sequence[Header] = ()
    length: int | None = None


Opening = Callable[[], contextlib.AbstractAsyncContextManager[Opened]]


class Outgoing:
    """ASGI app that answers with what ``opening`` opens; what that raises is a problem.

    Later the answer has begun: whatever happens then ends the connection before the length that was told, or without
    the last chunk.
    """

    def __init__(self, opening: Opening, *, stall_s: float = STALL_S) -> None:
        self._opening = opening
        self._stall_s = stall_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await unless_gone(receive, self._answer(scope, send))

    async def _answer(self, scope: Scope, send: Send) -> None:
        async with self._opening() as opened:
            headers = [*opened.headers, (b"content-type", opened.media_type.encode())]
            headers += [(b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff")]
            if opened.length is not None:
                headers.append((b"content-length", str(opened.length).encode()))
            await send({"type": "http.response.start", "status": opened.status, "headers": headers})
            try:
                await while_allowed(scope, self._send(opened, scope, send))
            except HearthError as error:
                note(error)
                await send({"type": "hearth.abort"})

    async def _send(self, opened: Opened, scope: Scope, send: Send) -> None:
        sent = 0
        async for piece in opened.download:
            sent += len(piece)
            if opened.length is not None and sent > opened.length:
                raise _changed(opened.length, f"more than {opened.length}")
            await self._patiently(scope, send({"type": "http.response.body", "body": piece, "more_body": True}))
        if opened.length not in (None, sent):
            raise _changed(opened.length, str(sent))
        await self._patiently(scope, send({"type": "http.response.body", "body": b"", "more_body": False}))

    async def _patiently(self, scope: Scope, sending: Awaitable[None]) -> None:
        """Wait for a client that is slow, but not for one that stands still."""
        try:
            async with asyncio.timeout(self._stall_s):
                await sending
        except TimeoutError as error:
            log.info("a client took nothing of its answer and was cut off", stall_s=self._stall_s)
            exchange_of(scope).transport.abort()
            raise ClientDisconnect from error


def _changed(told: int | None, came: str) -> GuestFailed:
    return GuestFailed("the file changed while it was read", details=f"it had {told} bytes, {came} came")
