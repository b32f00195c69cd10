"""HTTP/1.1 as the SDK speaks it, without I/O: a request becomes bytes, bytes become a response."""

from __future__ import annotations

from dataclasses import dataclass, field

import httptools

from hearth.errors import Unavailable
from hearth.sdk.endpoint import Endpoint
from hearth.version import VERSION


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
    """One request. ``timeout_s`` bounds each wait for bytes of the answer, in seconds."""

    method: str
    target: str
    timeout_s: float
    accept: str
    body: bytes = field(default=b"", repr=False)

    @property
    def may_repeat(self) -> bool:
        """Whether sending it twice does no harm."""
        return self.method == "GET"


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
    if request.body or request.method == "POST":
        lines += ["Content-Type: application/json", f"Content-Length: {len(request.body)}"]
    return "\r\n".join([*lines, "", ""]).encode("latin-1", "replace") + request.body


class ResponseReader:
    """Reads one response; feed it what arrives, ``take`` the body as far as it has come."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.head_complete = False
        self.complete = False
        self.keep_alive = False
        self._body: list[bytes] = []
        self._parser = httptools.HttpResponseParser(self)

    def feed(self, data: bytes) -> None:
        """Take bytes from the connection; no bytes mean its end.

        Raises:
            ConnectionLost: it ended, or what came is not HTTP.
        """
        if not data:
            raise ConnectionLost(answered=self.head_complete)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
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

    def on_body(self, data: bytes) -> None:
        """Called by the parser."""
        self._body.append(data)

    def on_message_complete(self) -> None:
        """Called by the parser."""
        self.keep_alive = self._parser.should_keep_alive()
        self.complete = True
