"""One line for each request (method, path, status, duration), its figures, and its span where somebody wants spans.

Never a query string, a header or a body.
"""

from __future__ import annotations

import time

import structlog
from prometheus_client import Counter, Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hearth.metrics import tracing
from hearth.metrics.instruments import HTTP_ACTIVE, HTTP_REQUESTS, HTTP_SECONDS
from hearth.server.middleware.routing import method_of, route_of

log = structlog.get_logger(__name__)

QUIET = frozenset({"/health", "/healthz", "/livez", "/readyz", "/metrics"})
CLIENT_GONE = 499
"""Logged when the caller left before it had an answer; nginx made the number customary."""
BOUND_INSIDE = ("user_id", "sandbox", "trace_id")
"""What is bound to the log inside a request; the next one on the connection may begin with a copy of it."""
TRACEPARENT = b"traceparent"
Children = dict[tuple[str, str, int], tuple[Counter, Histogram]]


class AccessLog:
    """Logs after the answer has gone out; probes are logged at debug level only."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self._children: Children = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        structlog.contextvars.unbind_contextvars(*BOUND_INSIDE)
        tracer = tracing.tracer()
        if tracer is None:
            await self._serve(scope, receive, send, None)
            return
        method = method_of(scope)
        about = {"http.request.method": method, "hearth.request_id": scope["state"]["request_id"]}
        with tracer.request(method, about, scope["headers"]) as request:
            structlog.contextvars.bind_contextvars(trace_id=request.trace_id)
            await self._serve(scope, receive, send, request)

    async def _serve(self, scope: Scope, receive: Receive, send: Send, request: tracing.Request | None) -> None:
        status = CLIENT_GONE
        started_s = time.perf_counter()

        async def send_and_note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if request is not None:
                    told = (TRACEPARENT, request.traceparent.encode("ascii"))
                    message["headers"] = [*message.get("headers", ()), told]
            await send(message)

        HTTP_ACTIVE.inc()
        try:
            await self.app(scope, receive, send_and_note)
        finally:
            HTTP_ACTIVE.dec()
            self._tell(scope, status, time.perf_counter() - started_s, request)

    def _tell(self, scope: Scope, status: int, duration_s: float, request: tracing.Request | None) -> None:
        route, method = route_of(scope), method_of(scope)
        if request is not None:
            request.answered(route, status)
        children = self._children.get((method, route, status))
        if children is None:
            children = (HTTP_REQUESTS.labels(method, route, str(status)), HTTP_SECONDS.labels(method, route))
            self._children[method, route, status] = children
        requests, seconds = children
        requests.inc()
        seconds.observe(duration_s)
        write = log.debug if scope["path"] in QUIET else log.info
        write(
            "request",
            method=scope["method"],
            path=scope.get("raw_path", b"").partition(b"?")[0].decode("ascii", "backslashreplace"),
            status=status,
            duration_ms=round(duration_s * 1000, 3),
            **scope["state"].get("log", {}),
        )
