"""One request carried to a server in a sandbox, and its answer carried back, as they come; never held whole."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field

import h11
import structlog
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from hearth.control.presence import Presence
from hearth.errors import GuestFailed, HearthError, InvalidInput, TimedOut
from hearth.server.proxy.door import Exchange, exchange_of
from hearth.server.proxy.headers import (
    NONE_WITHHELD,
    Route,
    Withheld,
    head,
    request_headers,
    response_headers,
    trailers,
    upgrade_of,
)
from hearth.server.proxy.tunnel import WEBSOCKET_LINGER_S, join, websocket_counts
from hearth.server.proxy.upstream import Upstream, Upstreams

log = structlog.get_logger(__name__)

ANSWER_S = 600.0
"""How long a server may think before the head of its answer comes, from the last of the body that it was sent."""
BODY_STALL_S = 120.0
"""How long a client may send nothing of a body that it has announced."""
CONTINUE_S = 1.0
"""A server that does not say whether to go on gets the body after so long (RFC 9110, section 10.1.1)."""
FLUSH_BYTES = 262_144
REPEATABLE = frozenset({"GET", "HEAD", "OPTIONS"})
NO_BODY_STATUSES = frozenset({204, 304})


@dataclass(frozen=True, kw_only=True)
class Target:
    """Where a request goes: ``path`` is what the server sees, the query included; ``withheld`` it never sees."""

    presence: Presence
    route: Route
    path: bytes
    dropped: frozenset[bytes] = frozenset()
    withheld: Withheld = NONE_WITHHELD


@dataclass(kw_only=True)
class Relay:
    """Carries one exchange."""

    scope: Scope
    receive: Receive
    send: Send
    target: Target
    upstreams: Upstreams
    exchange: Exchange = field(init=False)

    def __post_init__(self) -> None:
        self.exchange = exchange_of(self.scope)
        self._begun = False
        self._is_client_gone = False
        self._go_ahead = asyncio.Event()
        self._deadline: asyncio.Timeout | None = None

    async def run(self) -> None:
        """Carry it to its end.

        Raises:
            InvalidInput: the request cannot be passed on.
            GuestFailed: nothing listens, or the server broke off before it answered.
            TimedOut: it did not answer.
            ClientDisconnect: the client left.
        """
        event = self._request()
        repeatable = self.scope["method"] in REPEATABLE and not _has_body(event)
        upstream = await self._open(fresh=not repeatable or event_upgrade(event) is not None)
        try:
            await self._carry(upstream, event)
        except GuestFailed:
            # The server may have closed a kept connection in the moment we chose it: nothing was lost by that.
            if not upstream.is_reused or upstream.has_answered or self._is_client_gone:
                raise
            upstream = await self._open(fresh=True)
            await self._carry(upstream, event)

    async def _open(self, *, fresh: bool) -> Upstream:
        presence = self.target.presence
        return await self.upstreams.open(presence.sandbox.id, presence.guest, self.target.route.port, fresh=fresh)

    def _request(self) -> h11.Request:
        given = self.scope["headers"]
        codings = [value.strip().lower() for name, value in given if name == b"transfer-encoding"]
        if codings and codings != [b"chunked"]:
            raise InvalidInput(
                "invalid Transfer-Encoding",
                details="only 'chunked' is passed on",
                resolution="send the body chunked, or with its Content-Length",
                field="Transfer-Encoding",
            )
        upgrade = upgrade_of(given) if self.exchange.wants_upgrade else None
        target = self.target
        headers = request_headers(given, target.route, upgrade=upgrade, drop=target.dropped, withheld=target.withheld)
        try:
            return h11.Request(method=self.scope["method"], target=self.target.path, headers=headers)
        except h11.LocalProtocolError as error:
            raise InvalidInput(
                "the request cannot be passed on", details=str(error), resolution="send well-formed HTTP/1.1"
            ) from error

    async def _carry(self, upstream: Upstream, event: h11.Request) -> None:
        sending: asyncio.Task[None] | None = None
        try:
            first = upstream.encode(event)
            if not _has_body(event):
                first += upstream.encode(h11.EndOfMessage())
            await upstream.send(first)
            sending = asyncio.create_task(self._watch_client(upstream, event), name="proxy body")
            await self._answer(upstream)
        except (ClientDisconnect, HearthError) as error:
            await self._fail()
            if self._is_client_gone:
                raise ClientDisconnect from error
            raise
        finally:
            if sending is not None:
                sending.cancel()
                await asyncio.wait((sending,))
                if not sending.cancelled():
                    sending.exception()
            self.upstreams.give_back(upstream)

    async def _fail(self) -> None:
        """Let a client whose answer has begun see that it is not whole; one that has left is owed none."""
        if self._begun or self._is_client_gone:
            with contextlib.suppress(ClientDisconnect):
                await self.send({"type": "hearth.abort"})

    async def _watch_client(self, upstream: Upstream, event: h11.Request) -> None:
        """Carry what the client sends; one that leaves, or a sandbox that cannot be woken, ends the server's work."""
        try:
            self._is_client_gone = await self._send_body(upstream, event)
        except HearthError as error:
            log.info("request cut off", error=str(error))
        upstream.close()

    async def _send_body(self, upstream: Upstream, event: h11.Request) -> bool:
        """Send the body, if there is one, then wait until the client leaves; True when it has, or stands still."""
        if any(name == b"expect" for name, _ in event.headers):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CONTINUE_S):
                    await self._go_ahead.wait()
        ended = not _has_body(event)
        while True:
            try:
                async with asyncio.timeout(None if ended else BODY_STALL_S):
                    message = await self.receive()
            except TimeoutError:
                return True
            if message["type"] == "http.disconnect":
                return True
            if ended:
                continue
            await self.target.presence.wake()
            data = message.get("body", b"")
            parts = [upstream.encode(h11.Data(data=data))] if data else []
            if not message.get("more_body", False):
                ended = True
                given = self.exchange.trailers if _is_chunked(event) else []
                fields = trailers(given, withheld=self.target.withheld)
                parts.append(upstream.encode(h11.EndOfMessage(headers=fields)))
            with contextlib.suppress(GuestFailed):  # it may have answered before it closed: the answer tells
                await upstream.send(b"".join(parts))
            if self._deadline is not None:
                self._deadline.reschedule(asyncio.get_running_loop().time() + ANSWER_S)

    async def _answer(self, upstream: Upstream) -> None:
        response = await self._head(upstream)
        if response is None:
            return
        self.target.presence.relax()
        writer = Writer(self.scope, response, self.target.route)
        if writer.length:
            await self._plain_answer(upstream, writer, response)
        else:
            await self._framed_answer(upstream, writer, response)
        await self.send({"type": "hearth.end", "keep_alive": writer.keep_alive})

    async def _plain_answer(self, upstream: Upstream, writer: Writer, response: h11.Response) -> None:
        """Carry an answer whose body has a known length: its bytes are nobody's business."""
        first = [writer.head()]
        if not upstream.surplus():
            await self._flush(first, response.status_code)
            first = []
        async with contextlib.aclosing(upstream.plain_body(writer.length)) as body:
            async for data in body:
                self.target.presence.moved()
                await self._flush([*first, data], response.status_code)
                first = []

    async def _framed_answer(self, upstream: Upstream, writer: Writer, response: h11.Response) -> None:
        pieces = [writer.head()]
        size = 0
        while True:
            event = upstream.next()
            if isinstance(event, h11.Data):
                piece = writer.body(bytes(event.data))
                pieces.append(piece)
                size += len(piece)
            elif isinstance(event, h11.EndOfMessage):
                pieces.append(writer.end(list(event.headers)))
                await self._flush(pieces, response.status_code)
                return
            if size >= FLUSH_BYTES or event is h11.NEED_DATA:
                await self._flush(pieces, response.status_code)
                pieces, size = [], 0
            if event is h11.NEED_DATA:
                await upstream.receive()
                self.target.presence.moved()

    async def _flush(self, pieces: list[bytes], status: int) -> None:
        data = b"".join(pieces)
        if not self._begun:
            self._begun = True
            await self.send({"type": "http.response.start", "status": status, "hearth.head": data})
        elif data:
            await self.send({"type": "hearth.bytes", "body": data})

    async def _head(self, upstream: Upstream) -> h11.Response | None:
        """Wait for the head of the answer; None when it was an upgrade, which has come and gone then."""
        try:
            async with asyncio.timeout(ANSWER_S) as self._deadline:
                while True:
                    event = upstream.next()
                    if event is h11.NEED_DATA:
                        await upstream.receive()
                    elif isinstance(event, h11.Response):
                        self._deadline = None
                        return event
                    elif isinstance(event, h11.InformationalResponse):
                        if event.status_code == 101:
                            self._deadline.reschedule(None)
                            self._deadline = None
                            await self._upgrade(upstream, event)
                            return None
                        await self._inform(event)
        except TimeoutError as error:
            raise TimedOut(
                "the server in the sandbox did not answer",
                details=f"no head of an answer came in {ANSWER_S:g} s",
                resolution="look at that server's own log",
            ) from error

    async def _inform(self, event: h11.InformationalResponse) -> None:
        if event.status_code == 100:
            self._go_ahead.set()  # the client is told once its body is asked for
        elif self.scope["http_version"] == "1.1":
            status_line = _status_line(event.status_code, bytes(event.reason))
            told = head(status_line, response_headers(list(event.headers), self.target.route))
            # Not through the middleware: to it the answer would seem to have begun, and no problem could be told.
            await self.exchange.send({"type": "hearth.bytes", "body": told})

    async def _upgrade(self, upstream: Upstream, event: h11.InformationalResponse) -> None:
        given = list(event.headers)
        protocol = upgrade_of(given) or b""
        headers = [*response_headers(given, self.target.route), (b"connection", b"upgrade"), (b"upgrade", protocol)]
        self._begun = True
        told = head(_status_line(101, bytes(event.reason)), headers)
        await self.send({"type": "http.response.start", "status": 101, "hearth.head": told})
        client = self.exchange.take_over()
        stream, presence, early = upstream.stream, self.target.presence, upstream.surplus()
        try:
            if protocol.lower() == b"websocket":
                counts = websocket_counts()
                await join(client, stream, presence, early=early, counts=counts, linger_s=WEBSOCKET_LINGER_S)
            else:
                await join(client, stream, presence, early=early)
        finally:
            with contextlib.suppress(ClientDisconnect):
                await self.send({"type": "hearth.abort"})


class Writer:
    """Frames an answer for its client: by length where it is known, else by chunks, for HTTP/1.0 by the end."""

    def __init__(self, scope: Scope, response: h11.Response, route: Route) -> None:
        given = list(response.headers)
        self._response = response
        self._headers = response_headers(given, route)
        self._has_body = scope["method"] != "HEAD" and response.status_code not in NO_BODY_STATUSES
        length = (
            None if _is_chunked(response) else next((value for name, value in given if name == b"content-length"), None)
        )
        self._is_chunked = self._has_body and length is None and scope["http_version"] == "1.1"
        exchange = exchange_of(scope)
        is_framed = length is not None or self._is_chunked or not self._has_body
        self.keep_alive = exchange.keep_alive and is_framed and not exchange.is_expected_to_continue
        self.length = int(length) if length is not None and self._has_body else 0
        """Of the body, in bytes; 0 where there is none, or its end is told in other ways."""
        if length is not None and response.status_code != 204:
            self._headers.append((b"content-length", length))
        elif self._is_chunked:
            self._headers.append((b"transfer-encoding", b"chunked"))
        if not self.keep_alive:
            self._headers.append((b"connection", b"close"))

    def head(self) -> bytes:
        """Give the head."""
        return head(_status_line(self._response.status_code, bytes(self._response.reason)), self._headers)

    def body(self, data: bytes) -> bytes:
        """Give a piece of the body."""
        if not self._is_chunked or not data:
            return data if self._has_body else b""
        return b"%x\r\n%b\r\n" % (len(data), data)

    def end(self, fields: list[tuple[bytes, bytes]]) -> bytes:
        """Give what ends the body."""
        return head(b"0", trailers(fields)) if self._is_chunked else b""


def event_upgrade(event: h11.Request) -> bytes | None:
    """Tell which protocol a request wants to change to."""
    return upgrade_of(list(event.headers))


def _status_line(status: int, reason: bytes) -> bytes:
    return b"HTTP/1.1 %d %b" % (status, reason)


def _has_body(event: h11.Request) -> bool:
    return _is_chunked(event) or any(name == b"content-length" and value != b"0" for name, value in event.headers)


def _is_chunked(event: h11.Request | h11.Response) -> bool:
    return any(name == b"transfer-encoding" for name, _ in event.headers)
