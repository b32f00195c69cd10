"""GET /metrics: for administrators, since it tells of everybody's sandboxes; its own listener needs no key."""

from __future__ import annotations

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from hearth.api.operation import Operation
from hearth.api.schemas import Nothing
from hearth.control.daemon import Daemon
from hearth.control.users import require_administrator
from hearth.errors import NotFound
from hearth.server.exposition import Exposition
from hearth.server.middleware.auth import Authenticated
from hearth.server.resource import Resource

PATH = "/metrics"
METRICS = Operation(
    name="metrics",
    method="GET",
    path=PATH,
    summary="Tell all figures in Prometheus's text format; for administrators.",
    takes=Nothing,
    gives=Nothing,
)
"""Beside the table of operations: what it answers is no JSON."""


class _ForAdministrators:
    def __init__(self, exposition: Exposition) -> None:
        self._exposition = exposition

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        require_administrator(scope["state"]["user"])
        await _answer(self._exposition, scope, receive, send)


class MetricsOnly:
    """The app of the listener for scrapers: GET /metrics and nothing else."""

    def __init__(self, exposition: Exposition) -> None:
        self._resource = Resource({"GET": self._show})
        self._exposition = exposition

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] != PATH:
            raise NotFound("no such path", details="there is nothing here but /metrics", resolution="ask for /metrics")
        scope["endpoint"] = self._resource
        await self._resource(scope, receive, send)

    async def _show(self, scope: Scope, receive: Receive, send: Send) -> None:
        await _answer(self._exposition, scope, receive, send)


async def _answer(exposition: Exposition, scope: Scope, receive: Receive, send: Send) -> None:
    text = await exposition.text()
    await Response(text, headers={"content-type": CONTENT_TYPE_LATEST})(scope, receive, send)


def route(daemon: Daemon, exposition: Exposition | None = None) -> Route:
    """Give the route among the API's."""
    endpoint = _ForAdministrators(exposition or Exposition(daemon))
    return Route(PATH, Resource({"GET": Authenticated(endpoint, daemon=daemon, operation=METRICS)}))
