"""One line for each request: method, path, status, duration. Never a query string, a header or a body."""

from __future__ import annotations

import time

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

log = structlog.get_logger(__name__)

QUIET = frozenset({"/health", "/healthz", "/livez", "/readyz"})
CLIENT_GONE = 499
"""Logged when the caller left before it had an answer; nginx made the number customary."""


class AccessLog:
    """Logs after the answer has gone out; probes are logged at debug level only."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        status = CLIENT_GONE
        started = time.perf_counter()

        async def send_and_note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, send_and_note)
        finally:
            write = log.debug if scope["path"] in QUIET else log.info
            write(
                "request",
                method=scope["method"],
                path=scope.get("raw_path", b"").partition(b"?")[0].decode("ascii", "backslashreplace"),
                status=status,
                duration_ms=round((time.perf_counter() - started) * 1000, 3),
                **scope["state"].get("log", {}),
            )
