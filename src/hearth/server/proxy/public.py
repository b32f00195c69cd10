"""What everybody may reach: published ports, by host name or by path, woken from any state, within bounds."""

from __future__ import annotations

import asyncio
import contextlib
import re
from dataclasses import dataclass

import structlog
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from hearth.api.problems import status_of
from hearth.control.buckets import PublicRates, subscriber
from hearth.control.daemon import Daemon
from hearth.control.presence import present
from hearth.control.publishing import PUBLIC_PATH
from hearth.control.wakes import Busy, Wakes, wakes_of
from hearth.errors import HearthError, NotFound, Unauthenticated
from hearth.model import Heat, Publication, Sandbox
from hearth.server.proxy.door import has_body
from hearth.server.proxy.entry import route_of
from hearth.server.proxy.headers import TOKEN_HEADER, Withheld, query_without
from hearth.server.proxy.hosts import label_of
from hearth.server.proxy.pages import failure_page, plain_failure, waiting_page
from hearth.server.proxy.relay import Relay, Target
from hearth.server.proxy.trust import Origin, Trust
from hearth.server.proxy.upstream import Upstreams

log = structlog.get_logger(__name__)

PAGE_AFTER_S = 1.5
"""A browser whose machine takes longer to wake is shown a page in the meantime."""
WAKE_S = 120.0
"""How long everybody else waits."""
RETRY_S = 1
API_KEY_PREFIX = b"hk_"
_API_KEY = re.compile(rb"hk_[0-9a-f]{64}")
MAX_KEYS_LOOKED_UP = 4
"""Of one request; where there are more, none is passed on."""
_PATH = re.compile(rb"%b([^/]+)(/.*)?" % PUBLIC_PATH.encode(), re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class Visit:
    """One public request: the alias, the part of the path that leads to it, and the path for the server behind it."""

    alias: str
    prefix: bytes
    path: bytes


class PublicGate:
    """ASGI app of the public; ``zone`` is the DNS name whose labels are aliases, None where paths tell them."""

    def __init__(
        self,
        daemon: Daemon,
        *,
        upstreams: Upstreams,
        wakes: Wakes,
        rates: PublicRates,
        trust: Trust,
        zone: str | None,
    ) -> None:
        self.daemon = daemon
        self.upstreams = upstreams
        self.wakes = wakes
        self.rates = rates
        self.trust = trust
        self.zone = zone

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = False

        async def send_and_note(message: object) -> None:
            nonlocal begun
            begun = True
            await send(message)  # type: ignore[arg-type]

        try:
            answer = await self._serve(scope, receive, send_and_note)
        except HearthError as error:
            if begun:
                raise
            log.info("public request failed", code=error.code.value, error=str(error))
            answer = self._refusal(scope, error)
        if answer is not None:
            answer.headers["connection"] = "close" if has_body(scope["headers"]) else "keep-alive"
            await answer(scope, receive, send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> Response | None:
        """Answer a request; gives a page of our own instead where the sandbox cannot answer yet."""
        visit = visit_of(scope, self.zone)
        alias = "" if visit is None else visit.alias
        origin = self.trust.origin(scope)
        address = origin.client
        now_s = asyncio.get_running_loop().time()
        with self.rates.crowd.entered(subscriber(address) if address else alias) as may_enter:
            if not may_enter or not self.rates.allow(alias=alias, address=address, now_s=now_s):
                return _failure(scope, 429, "too many requests", retry_after_s=RETRY_S)
            if visit is None:
                raise NotFound("nothing is published here")
            return await self._admit(visit, origin, scope, receive, send)

    async def _admit(self, visit: Visit, origin: Origin, scope: Scope, receive: Receive, send: Send) -> Response | None:
        publication, sandbox = await self._find(visit.alias)
        scope["state"]["log"] = {"alias": visit.alias, "sandbox": sandbox.id}
        if self.daemon.sandboxes.heat(sandbox) is Heat.COLD:
            shows_page = _is_browser(scope)
            if not await self.wakes.wake(sandbox, patience_s=PAGE_AFTER_S if shows_page else WAKE_S):
                return (
                    waiting_page(visit.alias)
                    if shows_page
                    else _failure(scope, 503, "the sandbox is being woken", retry_after_s=RETRY_S)
                )
            sandbox = await self.daemon.sandboxes.store.sandboxes.get(sandbox.id)
        route = route_of(scope, origin, prefix=visit.prefix, port=publication.port)
        withheld = await self._own_secrets(scope)
        path, mark, query = visit.path.partition(b"?")
        query = query_without(query, withheld)
        async with present(self.daemon.sandboxes, sandbox) as presence:
            target = Target(
                presence=presence,
                route=route,
                path=path + mark + query if query else path,
                dropped=frozenset({TOKEN_HEADER}),
                withheld=withheld,
            )
            try:
                await Relay(scope=scope, receive=receive, send=send, target=target, upstreams=self.upstreams).run()
            except ClientDisconnect:
                log.debug("public client left", alias=visit.alias)
        return None

    async def _own_secrets(self, scope: Scope) -> Withheld:
        """Find API keys of this daemon's that somebody sends by mistake: whoever owns the sandbox could use them."""
        values = [value for _, value in scope["headers"] if API_KEY_PREFIX in value]
        if API_KEY_PREFIX in scope["query_string"]:
            values.append(scope["query_string"])
        candidates = {key for value in values for key in _API_KEY.findall(value)}
        found = set()
        for key in candidates if len(candidates) <= MAX_KEYS_LOOKED_UP else ():
            with contextlib.suppress(Unauthenticated):
                await self.daemon.users.identify(key.decode("ascii"))
                found.add(key)
        return frozenset(found if len(candidates) <= MAX_KEYS_LOOKED_UP else candidates)

    async def _find(self, alias: str) -> tuple[Publication, Sandbox]:
        try:
            return await self.daemon.publishing.find(alias)
        except NotFound as error:
            raise NotFound("nothing is published here") from error

    def _refusal(self, scope: Scope, error: HearthError) -> Response:
        """Tell a stranger no more than he needs: the details are the owner's."""
        status = status_of(error)
        retry_after_s = error.retry_after_s if isinstance(error, Busy) else None
        brief = (
            error.brief if status < 500 or isinstance(error, Busy) or status == 502 else "the sandbox is not there now"
        )
        return _failure(scope, status, brief, retry_after_s=retry_after_s)


def visit_of(scope: Scope, zone: str | None) -> Visit | None:
    """Tell what a request is for: where there is a zone by its Host alone, else by the alias in its path."""
    query = b"?" + scope["query_string"] if scope["query_string"] else b""
    if zone is not None:
        # A path would lead to all of them from one origin: what a browser keeps for one, another could read.
        label = label_of(scope["headers"], zone)
        return None if label is None else Visit(alias=label, prefix=b"", path=scope["raw_path"] + query)
    match = _PATH.fullmatch(scope["raw_path"])
    if match is None:
        return None
    prefix = scope["raw_path"][: match.end(1)]
    alias = match[1].decode("ascii", "replace").lower()
    return Visit(alias=alias, prefix=prefix, path=(match[2] or b"/") + query)


def _is_browser(scope: Scope) -> bool:
    """Tell whether a person looks at a page: what scripts and images ask for must not be answered by one."""
    accept = next((value for name, value in scope["headers"] if name == b"accept"), b"")
    return scope["method"] == "GET" and b"text/html" in accept.lower()


def _failure(scope: Scope, status: int, brief: str, *, retry_after_s: int | None = None) -> Response:
    make = failure_page if _is_browser(scope) else plain_failure
    return make(status, brief, retry_after_s=retry_after_s)


class Gateway:
    """What all ways to sandboxes share: connections kept, wakes under way, bounds, whom to believe."""

    def __init__(self, daemon: Daemon, trust: Trust | None = None, *, rates: PublicRates | None = None) -> None:
        self.upstreams = Upstreams()
        self.trust = trust or Trust()
        self._daemon = daemon
        self._wakes = wakes_of(daemon.sandboxes)
        self._rates = rates or PublicRates()

    def gate(self, zone: str | None = None) -> PublicGate:
        """Give the app of the public."""
        return PublicGate(
            self._daemon,
            upstreams=self.upstreams,
            wakes=self._wakes,
            rates=self._rates,
            trust=self.trust,
            zone=zone,
        )

    async def close(self) -> None:
        """Close the connections that are kept, and wait for the wakes under way."""
        self.upstreams.close()
        await self._wakes.close()
