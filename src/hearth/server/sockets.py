"""Calls that change to a WebSocket: who asks, whether they may, and the way out.

A request that brings its token is judged before the upgrade, as any other. One that brings none is upgraded and has a
moment to say ``auth``; what is wrong then is told in a message and by the code it closes with.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import msgspec
import structlog
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send
from structlog.contextvars import bind_contextvars

from hearth.api.limits import AUTH_S
from hearth.api.operation import Operation
from hearth.api.problems import event_of, internal_error, status_of
from hearth.api.session_schemas import Authenticate
from hearth.control.daemon import Daemon
from hearth.control.rates import Turnstile
from hearth.control.users import Caller, require_scope
from hearth.errors import Code, Forbidden, HearthError, InvalidInput, QuotaExceeded, Unauthenticated, Unavailable
from hearth.metrics.tracing import span
from hearth.model import Sandbox
from hearth.server.inputs import read_body, read_query
from hearth.server.middleware.audit import note_of
from hearth.server.middleware.credentials import certified_names, identify
from hearth.server.middleware.problems import note
from hearth.server.peer import address_of
from hearth.server.proxy.headers import without_parameter
from hearth.server.websocket import WebSocket, check_handshake, upgrade
from hearth.store.refusals import not_found

log = structlog.get_logger(__name__)

MAX_OF_USER = 500
MAX_STRANGERS = 200
"""Sockets whose clients have not said who they are."""
MAX_FIRST_BYTES = 4096
"""Of the message in which they do."""
GOING_AWAY = 1001
STATUS_BASE = 4000
"""A close code is this and the status that the error has elsewhere."""
LAST_MESSAGE_S = 5.0
"""How long a client has to take the message that tells of an error."""


class Stopping(Unavailable):
    """The daemon ends; what runs in sandboxes does not."""

    def __init__(self) -> None:
        super().__init__(
            "the daemon is stopping", details="the session goes on without it", resolution="attach again in a moment"
        )


@dataclass(frozen=True, kw_only=True)
class Visit:
    """One client that was let in."""

    daemon: Daemon
    crowd: Crowd
    socket: WebSocket
    caller: Caller
    sandbox: Sandbox
    wanted: Any
    request_id: str


Talk = Callable[[Visit], Awaitable[int]]
"""Speaks with a client to the end; gives the code to close with. What it raises is told to the client."""


@dataclass(frozen=True, kw_only=True)
class SocketBound:
    """An operation that changes to a WebSocket, what judges its query, and what speaks there."""

    operation: Operation[Any, Any]
    check: Callable[[Any], None]
    talk: Talk


class Crowd:
    """All sockets of this daemon: how many each user has, and the word that ends them."""

    def __init__(self) -> None:
        self.stopping = asyncio.Event()
        self._of_user: Counter[str] = Counter()
        self._strangers = 0

    def close(self) -> None:
        """Have every socket end."""
        self.stopping.set()

    @contextlib.contextmanager
    def stranger(self) -> Iterator[None]:
        """Count one that has not said who it is. Raises Unavailable when there are too many."""
        if self._strangers >= MAX_STRANGERS:
            raise Unavailable(
                "too many connections",
                details=f"{MAX_STRANGERS} WebSockets have not said who they are",
                resolution="bring the token with the request, or try again in a moment",
            )
        self._strangers += 1
        try:
            yield
        finally:
            self._strangers -= 1

    @contextlib.contextmanager
    def member(self, user_id: str) -> Iterator[None]:
        """Count one of a user's. Raises QuotaExceeded when there are too many."""
        if self._of_user[user_id] >= MAX_OF_USER:
            raise QuotaExceeded(
                "too many connections",
                details=f"{MAX_OF_USER} WebSockets may be open at a time",
                resolution="close a terminal that nobody looks at",
            )
        self._of_user[user_id] += 1
        try:
            yield
        finally:
            self._of_user[user_id] -= 1
            if not self._of_user[user_id]:
                del self._of_user[user_id]


class SocketEndpoint:
    """ASGI app of one operation that changes to a WebSocket."""

    def __init__(self, bound: SocketBound, daemon: Daemon, turnstile: Turnstile, crowd: Crowd) -> None:
        self.operation = bound.operation
        self._check = bound.check
        self._talk = bound.talk
        self._daemon = daemon
        self._turnstile = turnstile
        self._crowd = crowd

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        bind_contextvars(sandbox=scope["path_params"]["ref"])
        key = check_handshake(scope)
        query, token = without_parameter(scope["query_string"], "token")
        wanted = read_query(self.operation.takes, query)
        self._check(wanted)
        caller = await self._known(scope, receive, token)
        with span(self.operation.name), contextlib.ExitStack() as crowd:
            if caller is None:
                await self._meet_stranger(scope, send, key, wanted, crowd)
                return
            sandbox = await self._admit(scope, caller, crowd)
            socket = await upgrade(scope, send, key)
            await self._speak(scope, send, socket, self._visit(scope, socket, caller, sandbox, wanted))

    async def _known(self, scope: Scope, receive: Receive, token: str | None) -> Caller | None:
        """Tell who asks by what the request brings; None where it brings nothing.

        Raises:
            Unauthenticated: what it brings is nobody's.
            Forbidden: a page of another site lets a browser show its certificate.
        """
        brings = any(name == b"authorization" for name, _ in scope["headers"])
        if not brings and token is not None:
            return await self._daemon.users.identify(token)
        try:
            caller, _ = await identify(self._daemon, scope, receive)
        except Unauthenticated:
            if brings or certified_names(scope):
                raise
            return None
        if not brings:
            check_origin(scope)
        return caller

    async def _admit(self, scope: Scope, caller: Caller, crowd: contextlib.ExitStack) -> Sandbox:
        """Let a caller in to the sandbox of the path.

        Raises:
            Forbidden, NotFound, RateLimited, QuotaExceeded: it may not.
        """
        state = scope["state"]
        state["caller"], state["user"], state["log"] = caller, caller.user, {"user": caller.user.name}
        bind_contextvars(user_id=caller.user.id)
        try:
            require_scope(caller, self.operation.needed_scope)
            if address_of(scope) is not None:
                await self._turnstile.take("use", caller.user.id, asyncio.get_running_loop().time())
            reference = scope["path_params"]["ref"]
            sandbox = await self._daemon.sandboxes.get(caller.user, reference)
            if caller.sandbox_id not in (None, sandbox.id):
                raise not_found("sandbox", reference)
            crowd.enter_context(self._crowd.member(caller.user.id))
        except HearthError as error:
            if error.code is not Code.RATE_LIMITED:
                note_of(self._daemon, self.operation, scope, status_of(error), error.code)
            raise
        note_of(self._daemon, self.operation, scope, 101, None)
        return sandbox

    async def _meet_stranger(
        self, scope: Scope, send: Send, key: bytes, wanted: Any, crowd: contextlib.ExitStack
    ) -> None:
        """Upgrade, and learn who it is."""
        with self._crowd.stranger():
            socket = await upgrade(scope, send, key, max_bytes=MAX_FIRST_BYTES)
            try:
                caller = await self._introduced(scope, socket)
                socket.welcome()
                sandbox = await self._admit(scope, caller, crowd)
            except (HearthError, ClientDisconnect) as error:
                await self._end(scope, send, socket, error)
                return
        await self._speak(scope, send, socket, self._visit(scope, socket, caller, sandbox, wanted))

    async def _introduced(self, scope: Scope, socket: WebSocket) -> Caller:
        """Take the first message.

        Raises:
            Unauthenticated: it did not come in time, or its token is nobody's.
            InvalidInput: it is another one.
        """
        try:
            async with asyncio.timeout(AUTH_S):
                message = await socket.receive()
        except TimeoutError as error:
            raise Unauthenticated(
                "a token is needed",
                details=f"no message came within {AUTH_S} s",
                resolution='send {"type":"auth","token":…} first, or bring the token with the request',
            ) from error
        if message is None:
            raise ClientDisconnect
        try:
            return await self._daemon.users.identify(token_in(message))
        except Unauthenticated:
            if (address := address_of(scope)) is not None:
                await self._turnstile.take_address("failures", address, asyncio.get_running_loop().time())
            raise

    def _visit(self, scope: Scope, socket: WebSocket, caller: Caller, sandbox: Sandbox, wanted: Any) -> Visit:
        bind_contextvars(sandbox=sandbox.id)
        return Visit(
            daemon=self._daemon,
            crowd=self._crowd,
            socket=socket,
            caller=caller,
            sandbox=sandbox,
            wanted=wanted,
            request_id=scope["state"]["request_id"],
        )

    async def _speak(self, scope: Scope, send: Send, socket: WebSocket, visit: Visit) -> None:
        try:
            code = await self._talk(visit)
        except asyncio.CancelledError:
            await self._end(scope, send, socket, Stopping())
            raise
        except (HearthError, ClientDisconnect) as error:
            await self._end(scope, send, socket, error)
        except Exception:
            # The answer has begun: the client learns the id under which the log tells what happened.
            log.exception("unexpected error on a socket")
            await self._end(scope, send, socket, internal_error(visit.request_id))
        else:
            await socket.close(code)
            await send({"type": "hearth.abort"})

    async def _end(self, scope: Scope, send: Send, socket: WebSocket, error: HearthError | ClientDisconnect) -> None:
        """Tell a client why, as far as it is there to hear it, and close."""
        code = 1000
        if isinstance(error, HearthError):
            note(error)
            code = GOING_AWAY if isinstance(error, Stopping) else STATUS_BASE + status_of(error)
            with contextlib.suppress(TimeoutError, ClientDisconnect):
                async with asyncio.timeout(LAST_MESSAGE_S):
                    await socket.send_text(msgspec.json.encode(event_of(error, scope["state"]["request_id"])))
        await socket.close(code)
        await send({"type": "hearth.abort"})


def token_in(message: str | bytes) -> str:
    """Give the token of a first message.

    Raises:
        Unauthenticated: it is no ``auth``.
    """
    try:
        return read_body(Authenticate, message.encode() if isinstance(message, str) else b"").token
    except InvalidInput as error:
        raise Unauthenticated(
            "a token is needed",
            details="the request brought none, and the first message is no 'auth'",
            resolution='send {"type":"auth","token":…} first',
        ) from error


def check_origin(scope: Scope) -> None:
    """See that a request let in by what a browser sends by itself, its certificate, is no other site's doing.

    Raises:
        Forbidden: its page is from elsewhere.
    """
    given = {name: value for name, value in scope["headers"] if name in (b"origin", b"host")}
    origin = given.get(b"origin")
    if origin is not None and origin.lower() != scope["scheme"].encode() + b"://" + given.get(b"host", b"").lower():
        raise Forbidden(
            "a page of another site",
            details="a certificate opens a WebSocket only for pages of this address",
            resolution="use a token",
        )
