"""Puts the application together: the table of operations, their handlers and the middleware around them."""

from __future__ import annotations

from starlette.routing import Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from hearth.api.limits import MAX_BODY_BYTES
from hearth.api.operations import OPERATIONS
from hearth.control.daemon import Daemon
from hearth.control.rates import Turnstile
from hearth.errors import NotFound
from hearth.server.draining import Drain
from hearth.server.middleware.access_log import AccessLog
from hearth.server.middleware.audit import Audited
from hearth.server.middleware.auth import Authenticated
from hearth.server.middleware.body_limit import BodyLimit
from hearth.server.middleware.idempotency import Idempotent
from hearth.server.middleware.operating import Operating
from hearth.server.middleware.problems import Problems
from hearth.server.middleware.rates import AddressLimited, UserLimited
from hearth.server.middleware.request_id import RequestId
from hearth.server.proxy.entry import Crossing
from hearth.server.proxy.public import Gateway
from hearth.server.resource import Bound, Endpoint, Resource
from hearth.server.routes import (
    audit,
    egress,
    endings,
    events,
    execs,
    files,
    health,
    images,
    jobs,
    lives,
    machine_templates,
    metrics,
    openapi,
    provision,
    quotas,
    sandboxes,
    secrets,
    sessions,
    snapshots,
    stats,
    templates,
    users,
    volumes,
)
from hearth.server.routes.ports import BOUND as PORTS
from hearth.server.sockets import Crowd, SocketEndpoint
from hearth.server.terminals import SOCKETS
from hearth.server.uploads import is_upload

BOUND: tuple[Bound, ...] = (
    *PORTS,
    *sandboxes.BOUND,
    *lives.BOUND,
    *execs.BOUND,
    *files.BOUND,
    *sessions.BOUND,
    *snapshots.BOUND,
    *endings.BOUND,
    *stats.BOUND,
    *egress.BOUND,
    *machine_templates.BOUND,
    *templates.BOUND,
    *volumes.BOUND,
    *images.BOUND,
    *provision.BOUND,
    *users.BOUND,
    *quotas.BOUND,
    *secrets.BOUND,
    *audit.BOUND,
    *events.BOUND,
    *jobs.BOUND,
    *health.BOUND,
)


def build_app(daemon: Daemon, gateway: Gateway, drain: Drain, turnstile: Turnstile) -> ASGIApp:
    """Give the ASGI application of one daemon.

    Raises:
        ValueError: an operation of the contract has no handler, or a handler no operation.
    """
    crowd = Crowd()
    drain.also(crowd.close)
    routes = [*_routes(daemon, turnstile, crowd), *openapi.ROUTES, metrics.route(daemon)]
    router = Router(routes, redirect_slashes=False, default=_unknown_path)
    limited = BodyLimit(AddressLimited(router, turnstile=turnstile), max_bytes=MAX_BODY_BYTES, spares=is_upload)
    crossing = Crossing(limited, public=gateway.gate(), daemon=daemon, upstreams=gateway.upstreams, trust=gateway.trust)
    return observed(drain.over(crossing))


def wrap(app: ASGIApp) -> ASGIApp:
    """Put all middleware around an application, outermost first: id, log, problems, body limit."""
    return observed(BodyLimit(app, max_bytes=MAX_BODY_BYTES))


def observed(app: ASGIApp) -> ASGIApp:
    """Put around an application what holds for bodies of any size, too: id, log, problems."""
    return RequestId(AccessLog(Problems(app)))


def _routes(daemon: Daemon, turnstile: Turnstile, crowd: Crowd) -> list[Route]:
    bound_names = [*(bound.operation.name for bound in BOUND), *(bound.operation.name for bound in SOCKETS)]
    if set(bound_names) != {operation.name for operation in OPERATIONS}:
        raise ValueError("the table of operations and the handlers differ")
    paths: dict[str, dict[str, ASGIApp]] = {}
    for bound in BOUND:
        endpoint: ASGIApp = Operating(Endpoint(bound, daemon), bound.operation)
        if bound.operation.creates:
            endpoint = Idempotent(endpoint, daemon=daemon)
        if not bound.operation.public:
            endpoint = UserLimited(endpoint, turnstile=turnstile, operation=bound.operation)
            endpoint = Authenticated(endpoint, daemon=daemon, operation=bound.operation)
        if bound.operation.changes:
            endpoint = Audited(endpoint, daemon=daemon, operation=bound.operation)
        paths.setdefault(bound.operation.path, {})[bound.operation.method] = endpoint
    for socket in SOCKETS:
        endpoint = SocketEndpoint(socket, daemon, turnstile, crowd)
        paths.setdefault(socket.operation.path, {})[socket.operation.method] = endpoint
    return [Route(path, Resource(endpoints)) for path, endpoints in paths.items()]


async def _unknown_path(scope: Scope, _receive: Receive, _send: Send) -> None:
    raise NotFound(
        "no such path",
        details=f"{scope['method']} {scope['path'][:200]!r}",
        resolution="see /openapi.json for what there is",
    )
