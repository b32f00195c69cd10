"""``ANY /api/v1/sandboxes/:ref/proxy/:port/rest`` and ``…/tunnel/:port``: whose they are, and on to the sandbox.

They stand beside the table of operations: any method, bodies of any size, and paths that are passed on byte by byte.
"""

from __future__ import annotations

import re
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import structlog
from starlette.types import ASGIApp, Receive, Scope, Send

from hearth.api.limits import PREFIX
from hearth.api.port_operations import TUNNEL_PROTOCOL
from hearth.control.daemon import Daemon
from hearth.control.presence import present
from hearth.control.publishing import PUBLIC_PATH
from hearth.control.users import Caller, require_scope
from hearth.errors import GuestFailed, InvalidInput, Unauthenticated, Unavailable
from hearth.model import Sandbox, check_range
from hearth.server.middleware.credentials import bearer_token
from hearth.server.proxy.door import exchange_of
from hearth.server.proxy.headers import (
    TOKEN_HEADER,
    Route,
    Withheld,
    head,
    query_without,
    upgrade_of,
    without_parameter,
)
from hearth.server.proxy.relay import Relay, Target
from hearth.server.proxy.trust import Origin, Trust
from hearth.server.proxy.tunnel import join
from hearth.server.proxy.upstream import Upstreams
from hearth.server.standing import KeyEnded, Standing
from hearth.store.refusals import not_found
from hearth.tenancy import KeyScope

log = structlog.get_logger(__name__)

MAX_PORT = 65_535
_PATH = re.compile(rb"%b/sandboxes/([^/]+)/(proxy|tunnel)/([^/]+)(/.*)?" % PREFIX.encode(), re.DOTALL)
OWN_HEADERS = frozenset({b"authorization", TOKEN_HEADER})


@dataclass(frozen=True, kw_only=True)
class Crossed:
    """One request for a sandbox, taken apart: ``path`` is what the server sees, ``prefix`` what it does not."""

    caller: Caller
    reference: str
    port: int
    path: bytes
    prefix: bytes
    dropped: frozenset[bytes]
    withheld: Withheld


class Crossing:
    """Takes what goes to sandboxes, published ports by ``public``; everything else goes on to ``app``."""

    def __init__(
        self, app: ASGIApp, *, public: ASGIApp, daemon: Daemon, upstreams: Upstreams, trust: Trust | None = None
    ) -> None:
        self.app = app
        self.public = public
        self.daemon = daemon
        self.upstreams = upstreams
        self.trust = trust or Trust()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        match = _PATH.fullmatch(scope["raw_path"])
        if match is None:
            app = self.public if scope["raw_path"].startswith(PUBLIC_PATH.encode()) else self.app
            await app(scope, receive, send)
            return
        reference, kind, port, rest = match.groups()
        token, query, dropped = credentials(scope)
        caller = await self.daemon.users.identify(token)
        scope["state"]["log"] = {"user": caller.user.name}
        require_scope(caller, KeyScope.EXEC)
        withheld = frozenset({token.encode("latin-1")})
        query = query_without(query, withheld)
        call = Crossed(
            caller=caller,
            reference=unquote(reference.decode("ascii")),
            port=read_port(port),
            path=(rest or b"/") + (b"?" + query if query else b""),
            prefix=scope["raw_path"][: match.end(3)],
            dropped=dropped,
            withheld=withheld,
        )
        await (self._proxy if kind == b"proxy" else self._tunnel)(call, scope, receive, send)

    async def _proxy(self, call: Crossed, scope: Scope, receive: Receive, send: Send) -> None:
        sandbox = await self._sandbox(call)
        route = route_of(scope, self.trust.origin(scope), prefix=call.prefix, port=call.port)
        async with present(self.daemon.sandboxes, sandbox) as presence:
            target = Target(
                presence=presence, route=route, path=call.path, dropped=call.dropped, withheld=call.withheld
            )
            relay = Relay(scope=scope, receive=receive, send=send, target=target, upstreams=self.upstreams)
            await self._while_allowed(call, scope, send, relay.run())

    async def _tunnel(self, call: Crossed, scope: Scope, _receive: Receive, send: Send) -> None:
        exchange = exchange_of(scope)
        wanted = upgrade_of(scope["headers"]) if exchange.wants_upgrade else None
        if scope["method"] != "GET" or wanted is None or wanted.lower() != TUNNEL_PROTOCOL.encode():
            raise InvalidInput(
                "this is a tunnel",
                details=f"it is a GET that changes the protocol to {TUNNEL_PROTOCOL!r}",
                resolution=f"send 'Connection: Upgrade' and 'Upgrade: {TUNNEL_PROTOCOL}'",
                field="Upgrade",
            )
        sandbox = await self._sandbox(call)
        async with present(self.daemon.sandboxes, sandbox) as presence:
            try:
                stream = await presence.guest.forward(call.port)
            except Unavailable as error:
                raise GuestFailed(error.brief, details=error.details, resolution=error.resolution) from error
            async with stream:
                fields = [(b"connection", b"upgrade"), (b"upgrade", TUNNEL_PROTOCOL.encode())]
                told = head(b"HTTP/1.1 101 Switching Protocols", fields)
                await send({"type": "http.response.start", "status": 101, "hearth.head": told})
                await self._while_allowed(call, scope, send, join(exchange.take_over(), stream, presence))
        await send({"type": "hearth.abort"})

    async def _while_allowed(self, call: Crossed, scope: Scope, send: Send, work: Coroutine[Any, Any, None]) -> None:
        """Serve a caller as long as its key holds.

        Raises:
            KeyEnded: it does not any more, and nothing was answered yet.
        """
        try:
            await Standing(users=self.daemon.users, caller=call.caller).during(work)
        except KeyEnded:
            if not exchange_of(scope).response_started:
                raise
            log.info("cut off: the API key has ended")
            await send({"type": "hearth.abort"})

    async def _sandbox(self, call: Crossed) -> Sandbox:
        """Give the sandbox that a call is for; raises NotFound, too, for one that its key is not for."""
        sandbox = await self.daemon.sandboxes.get(call.caller.user, call.reference)
        if call.caller.sandbox_id not in (None, sandbox.id):
            raise not_found("sandbox", call.reference)
        return sandbox


def credentials(scope: Scope) -> tuple[str, bytes, frozenset[bytes]]:
    """Give hearth's token, the query without it, and the headers that held it: the sandbox shall see none of them.

    A request for the sandbox may need its Authorization for the server there: then ours comes as X-Hearth-Token. A
    browser's WebSocket can set no header at all: it says ``?token=``.

    Raises:
        Unauthenticated: there is no token.
    """
    given = [value for name, value in scope["headers"] if name == TOKEN_HEADER]
    if given:
        if len(given) > 1:
            raise Unauthenticated("a token is needed", details="X-Hearth-Token is given twice")
        return given[0].decode("latin-1"), scope["query_string"], frozenset({TOKEN_HEADER})
    if not any(name == b"authorization" for name, _ in scope["headers"]) and exchange_of(scope).wants_upgrade:
        query, token = without_parameter(scope["query_string"], "token")
        if token:
            return token, query, OWN_HEADERS
    return bearer_token(scope), scope["query_string"], OWN_HEADERS


def read_port(text: bytes) -> int:
    """Read a port; raises InvalidInput naming it."""
    if not re.fullmatch(rb"[0-9]{1,5}", text):
        raise InvalidInput(
            "invalid port",
            details=f"port {text[:20]!r} is not a number",
            resolution=f"use 1 to {MAX_PORT}",
            field="port",
        )
    return check_range(int(text), 1, MAX_PORT, what="port")


def route_of(scope: Scope, origin: Origin, *, prefix: bytes, port: int) -> Route:
    """Tell how a request came and where it goes."""
    host = next((value for name, value in scope["headers"] if name == b"host"), b"")
    return Route(scheme=origin.scheme.encode(), host=host, prefix=prefix, port=port, client=origin.client)
