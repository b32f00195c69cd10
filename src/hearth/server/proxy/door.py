"""uvicorn's HTTP/1.1 protocol with bounds on heads, and a way for an application to answer in bytes of its own.

Everything that decides stays ASGI: ids, logs, problems, authentication, routes. A proxy needs three things that ASGI
has not: trailers and informational answers, heads as the server wrote them, and the bare connection after an upgrade.
docs/decisions/proxy.md tells why it is done here.
"""

from __future__ import annotations

import asyncio
import urllib.parse
from collections.abc import Iterable
from typing import Any, cast

import httptools
import msgspec
from starlette.requests import ClientDisconnect
from starlette.types import Scope
from uvicorn.protocols.http.flow_control import service_unavailable
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from hearth.api.limits import JSON
from hearth.api.problems import problem_of
from hearth.errors import HearthError, InvalidInput, RequestTimeout, TooLarge
from hearth.server.proxy.raw import STALL_S, RawStream

EXTENSION = "hearth.door"
"""Where a scope's ``extensions`` hold its exchange."""
HEAD_S = 20.0
"""How long a client may take for a request's head."""
MAX_HEAD_BYTES = 65_536
MAX_HEAD_FIELDS = 256
VERSIONS = frozenset({"1.0", "1.1"})
PAUSED_AT = 8
MAX_PIPELINED = 64
"""Requests that wait for the answer before them; each costs 3 KiB, and ten thousand fit into what is read at once."""
MAX_EARLY_BYTES = 65_536
"""What is held of a new protocol before the upgrade to it is answered; then the socket is left to fill."""


def _refusal(status: str, error: HearthError) -> bytes:
    """Give the whole answer to what is no request, and so has no id."""
    body = msgspec.json.encode(problem_of(error, ""))
    told = f"HTTP/1.1 {status}\r\ncontent-type: {JSON}\r\nconnection: close\r\ncontent-length: {len(body)}\r\n\r\n"
    return told.encode() + body


TOO_LARGE = _refusal(
    "431 Request Header Fields Too Large",
    TooLarge(
        "the head is too large",
        details=f"a head may hold {MAX_HEAD_BYTES} bytes and {MAX_HEAD_FIELDS} fields",
        resolution="send fewer headers, or a shorter address",
    ),
)
TOO_SLOW = _refusal(
    "408 Request Timeout",
    RequestTimeout("the request came too slowly", details=f"no whole head came within {HEAD_S:g} s"),
)
INVALID = _refusal(
    "400 Bad Request",
    InvalidInput(
        "this is not a valid request",
        details="it is not HTTP, or may be read in several ways",
        resolution="send HTTP/1.1 with one Host and one length",
    ),
)
END = b""


class HeadTooLarge(Exception):
    """A head, or the trailers, are more than anybody needs."""


class Ambiguous(Exception):
    """It is not one request for one host, or too many of them wait for their turn."""


class Exchange(RequestResponseCycle):
    """One request and its answer.

    ``send`` takes, besides ASGI's own messages: ``http.response.start`` with ``hearth.head``, a whole head as bytes;
    ``hearth.bytes`` for what follows it, or for an informational answer before it; ``hearth.end`` with ``keep_alive``;
    and ``hearth.abort``, after which the client sees that the answer is not whole.
    """

    door: Door
    trailers: list[tuple[bytes, bytes]]
    wants_upgrade = False

    async def send(self, message: Any) -> None:
        """Send one message; raises ClientDisconnect when a proxy's client is gone or does not read."""
        kind = message["type"]
        if kind == "hearth.abort":
            self._finish(keep_alive=False)
        elif kind == "hearth.end":
            self._finish(keep_alive=message["keep_alive"])
        elif kind == "hearth.bytes":
            await self._write(message["body"])
        elif (head := message.get("hearth.head")) is not None:
            self.response_started = True
            self.waiting_for_100_continue = False
            await self._write(head)
        else:
            await super().send(message)

    @property
    def is_expected_to_continue(self) -> bool:
        """True while the client waits for a word before it sends its body."""
        return self.waiting_for_100_continue

    def take_over(self) -> RawStream:
        """Take the connection for anything but HTTP, from the byte after the request on; its head has been sent."""
        return self.door.take_over()

    async def _write(self, data: bytes) -> None:
        if self.flow.write_paused and not self.disconnected:
            try:
                async with asyncio.timeout(STALL_S):
                    await self.flow.drain()
            except TimeoutError as error:
                self.transport.abort()
                raise ClientDisconnect from error
        if self.disconnected or self.transport.is_closing():
            raise ClientDisconnect
        self.transport.write(data)

    def _finish(self, *, keep_alive: bool) -> None:
        self.response_started = self.response_complete = True
        self.message_event.set()
        if self.more_body or not (keep_alive and self.keep_alive):
            self.transport.close()
        self.on_response()


class Door(HttpToolsProtocol):
    """One connection of a client."""

    head_s = HEAD_S
    transport: asyncio.Transport
    cycle: Exchange  # None before the first request, as uvicorn has it

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._raw: RawStream | None = None
        self._under_way: Exchange | None = None
        self._early: list[bytes] | None = None
        self._head_timer: asyncio.TimerHandle | None = None
        self._head_done = False
        self._start_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_head_timer()
        if self._raw is not None:
            self._raw.lost()
        if self._under_way is not None and self._under_way is not self.cycle:  # uvicorn tells only the latest
            self._under_way.disconnected = not self._under_way.response_complete
            self._under_way.message_event.set()
        self.pipeline.clear()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse, unless an upgrade was asked for: what follows such a request belongs to what comes of it."""
        if self._raw is not None:
            self._raw.feed(data)
            return
        if self._early is not None:
            self._early.append(data)
            if sum(map(len, self._early)) > MAX_EARLY_BYTES:
                self.flow.pause_reading()
            return
        self._unset_keepalive_if_required()
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self.flow.pause_reading()
            self._early = [data[upgrade.args[0] :]]
        except httptools.HttpParserError as error:
            self._refuse(TOO_LARGE if isinstance(error.__context__, HeadTooLarge) else INVALID)

    def eof_received(self) -> bool | None:  # type: ignore[override]
        """A client that ends its direction of a tunnel may still be answered; of an HTTP exchange it has left."""
        if self._raw is None:
            return None
        self._raw.feed(END)
        return self.scheme != "https"

    def shutdown(self) -> None:
        """End what has no end of its own; a request under way may be answered first."""
        if self._raw is not None:
            self._raw.close()
        super().shutdown()

    def take_over(self) -> RawStream:
        """Give the bare connection."""
        early, self._early = b"".join(self._early or ()), None
        self._unset_keepalive_if_required()
        self._raw = RawStream(self.transport, self.flow, can_half_close=self.scheme != "https")
        if early:
            self._raw.feed(early)
        self.flow.resume_reading()
        return self._raw

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._start_head()

    def on_url(self, url: bytes) -> None:
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Note a header of the head, or one of the trailers."""
        self._count(len(name) + len(value))
        self._fields += 1
        if self._fields > MAX_HEAD_FIELDS:
            raise HeadTooLarge
        if self._head_done:
            if self.cycle is not None:
                self.cycle.trailers.append((name.lower(), value))
        else:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Begin the exchange; a pipelined one waits for its turn."""
        self._stop_head_timer()
        self._head_done = True
        self._bytes = self._fields = 0
        version = self.parser.get_http_version()
        self._check(version)
        scope: Any = self.scope
        _fill(scope, self.parser.get_method(), version, self.url, self.root_path)
        earlier = self.cycle
        self.cycle = self._exchange(scope, version)
        scope["extensions"] = {EXTENSION: self.cycle}
        app: Any = service_unavailable if self._is_crowded() else self.app
        if earlier is None or earlier.response_complete:
            self._start_asgi_task(self.cycle, app)
        else:
            self.pipeline.appendleft((self.cycle, app))
            if len(self.pipeline) >= PAUSED_AT:  # not before: who does not read does not see a client leave
                self.flow.pause_reading()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._under_way = cast(Exchange, cycle)
        super()._start_asgi_task(cycle, app)

    def _check(self, version: str) -> None:
        """Refuse a head that others on its way may have read otherwise (RFC 9112, sections 2.3, 3.2 and 3.3).

        Raises:
            Ambiguous: another version, no Host or more than one, or another than the target names; or an upgrade with
                a body: the parser takes that for the new protocol's first bytes.
        """
        hosts = [value for name, value in self.headers if name == b"host"]
        if self.parser.get_method() == b"CONNECT" or b"#" in self.url:
            raise Ambiguous
        if version not in VERSIONS or len(hosts) > 1 or (version == "1.1" and not hosts):
            raise Ambiguous
        if not self.url.startswith(b"/"):
            authority = self.url.partition(b"://")[2].partition(b"/")[0].partition(b"?")[0]
            if not hosts or authority.lower() != hosts[0].lower():
                raise Ambiguous
        if self.parser.should_upgrade() and has_body(self.headers):
            raise Ambiguous
        if len(self.pipeline) >= MAX_PIPELINED:
            raise Ambiguous

    def _exchange(self, scope: Any, version: str) -> Exchange:
        exchange = Exchange(
            scope=scope,
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=self.access_log,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=self.expect_100_continue and version != "1.0",
            keep_alive=version != "1.0" and self.parser.should_keep_alive() and not self.parser.should_upgrade(),
            on_response=self.on_response_complete,
        )
        exchange.door, exchange.trailers = self, []
        exchange.wants_upgrade = self.parser.should_upgrade()
        return exchange

    def _is_crowded(self) -> bool:
        return self.limit_concurrency is not None and len(self.connections) > self.limit_concurrency

    def _count(self, size: int) -> None:
        self._bytes += size
        if self._bytes > MAX_HEAD_BYTES:
            raise HeadTooLarge

    def _start_head(self) -> None:
        self._head_done = False
        self._bytes = self._fields = 0
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(self.head_s, self._head_took_too_long)

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_took_too_long(self) -> None:
        self._head_timer = None
        self._refuse(TOO_SLOW)

    def _refuse(self, answer: bytes) -> None:
        """End the connection; with words, unless they would seem to be those of an answer that is under way."""
        if self.cycle is None or self.cycle.response_complete:
            self.transport.write(answer)
        self.transport.close()


def has_body(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Tell whether a request with these headers has a body."""
    return any(name == b"transfer-encoding" or (name == b"content-length" and value != b"0") for name, value in headers)


def exchange_of(scope: Scope) -> Exchange:
    """Give the exchange behind a scope of this server's."""
    exchange: Exchange = scope["extensions"][EXTENSION]
    return exchange


def _fill(scope: Any, method: bytes, version: str, url: bytes, root_path: str) -> None:
    """Complete a scope with what the request line says."""
    parsed = httptools.parse_url(url)
    raw_path: bytes = parsed.path
    path = raw_path.decode("ascii")
    scope["method"] = method.decode("ascii")
    scope["http_version"] = version
    scope["path"] = root_path + (urllib.parse.unquote(path) if "%" in path else path)
    scope["raw_path"] = root_path.encode("ascii") + raw_path
    scope["query_string"] = parsed.query or b""
