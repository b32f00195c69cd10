"""HTTP/1.1 as the SDK speaks it, without I/O: a request becomes bytes, bytes become a response."""

from __future__ import annotations

from dataclasses import dataclass, field

import httptools

from hearth.api.limits import IDEMPOTENCY_HEADER, JSON
from hearth.errors import Unavailable
from hearth.sdk.endpoint import Endpoint
from hearth.version import VERSION

SWITCHED = 101
"""The connection speaks another protocol from here on."""


class ConnectionLost(Unavailable):
    """The connection ended before the answer did; ``answered`` tells whether any of it had come."""

    def __init__(self, *, answered: bool) -> None:
        self.answered = answered
        super().__init__(
            "the connection to the daemon broke",
            details="the answer is incomplete" if answered else "there was no answer",
            resolution="see the daemon's log; run the command again if that does no harm",
        )


@dataclass(frozen=True, kw_only=True)
class HttpRequest:
    """One request. ``timeout_s`` bounds each wait for bytes of the answer, in seconds.

    With ``streamed`` its body is sent in pieces behind it, ``length`` bytes together, or none says how many. The
    daemon does what has an ``idempotency_key`` once, however often it comes. With a ``websocket_key`` the connection is
    to become a WebSocket.
    """

    method: str
    target: str
    timeout_s: float
    accept: str
    body: bytes = field(default=b"", repr=False)
    content_type: str = JSON
    byte_range: str = ""
    idempotency_key: str = ""
    streamed: bool = False
    length: int | None = None
    websocket_key: str = ""

    @property
    def may_repeat(self) -> bool:
        """Whether sending it twice does no harm, and is possible."""
        return not self.streamed and (self.method in ("GET", "HEAD", "PUT") or bool(self.idempotency_key))


@dataclass(frozen=True, kw_only=True)
class HttpResponse:
    """A whole answer; header names are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


def encode_request(request: HttpRequest, endpoint: Endpoint) -> bytes:
    """Give the bytes of a request, token included."""
    lines = [
        f"{request.method} {request.target} HTTP/1.1",
        f"Host: {endpoint.authority}",
        f"User-Agent: hearth/{VERSION}",
        f"Accept: {request.accept}",
    ]
    if endpoint.token:
        lines.append(f"Authorization: Bearer {endpoint.token}")
    if request.byte_range:
        lines.append(f"Range: {request.byte_range}")
    if request.websocket_key:
        lines += ["Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"]
        lines.append(f"Sec-WebSocket-Key: {request.websocket_key}")
    if request.idempotency_key:
        lines.append(f"{IDEMPOTENCY_HEADER}: {request.idempotency_key}")
    if request.body or request.method in ("POST", "PUT"):
        lines.append(f"Content-Type: {request.content_type}")
        if request.streamed and request.length is None:
            lines.append("Transfer-Encoding: chunked")
        else:
            lines.append(f"Content-Length: {request.length if request.streamed else len(request.body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1", "replace") + request.body


def encode_piece(request: HttpRequest, piece: bytes) -> bytes:
    """Give the bytes of a piece of a streamed body; an empty piece is its end."""
    if request.length is not None:
        return piece
    return b"%x\r\n%b\r\n" % (len(piece), piece)


class ResponseReader:
    """Reads one response; feed it what arrives, ``take`` the body as far as it has come.

    ``rest`` is what came behind the head of an answer that changes the protocol.

    ``bodiless``: it is the answer to a HEAD, which tells the length of what it does not bring.
    """

    def __init__(self, *, bodiless: bool = False) -> None:
        self._bodiless = bodiless
        self.status = 0
        self.headers: dict[str, str] = {}
        self.head_complete = False
        self.complete = False
        self.keep_alive = False
        self.rest = b""
        self._body: list[bytes] = []
        self._parser = httptools.HttpResponseParser(self)

    def feed(self, data: bytes) -> None:
        """Take bytes from the connection; no bytes mean its end.

        Raises:
            ConnectionLost: it ended, or what came is not HTTP.
            KeyboardInterrupt: it came in the middle; to the parser it is an error like any other.
        """
        if not data:
            raise ConnectionLost(answered=self.head_complete)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self.rest = data[upgrade.args[0] :]
        except httptools.HttpParserError as error:
            if isinstance(error.__context__, KeyboardInterrupt):
                raise error.__context__ from None
            raise ConnectionLost(answered=True) from error

    def take(self) -> bytes:
        """Give the part of the body that came since the last call."""
        body, self._body = b"".join(self._body), []
        return body

    def on_header(self, name: bytes, value: bytes) -> None:
        """Called by the parser."""
        self.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        """Called by the parser."""
        self.status = self._parser.get_status_code()
        self.head_complete = True
        if self._bodiless:
            self.on_message_complete()

    def on_body(self, data: bytes) -> None:
        """Called by the parser."""
        self._body.append(data)

    def on_message_complete(self) -> None:
        """Called by the parser."""
        self.keep_alive = self.status != SWITCHED and self._parser.should_keep_alive()
        self.complete = True
