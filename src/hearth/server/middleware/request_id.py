"""Gives every request an id: the caller's own when it brought a sane one, else a new one; returned and logged."""

from __future__ import annotations

import re
import secrets

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hearth.api.limits import CORRELATION_HEADER, REQUEST_ID_HEADER

_SANE = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}")
_OWN = REQUEST_ID_HEADER.lower().encode()
_CORRELATION = CORRELATION_HEADER.lower().encode()


class RequestId:
    """Puts ``request_id`` into the scope's state, the log context and the answer's headers."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        given = {name: value for name, value in scope["headers"] if name in (_OWN, _CORRELATION)}
        chosen = next((given[name] for name in (_OWN, _CORRELATION) if _SANE.fullmatch(given.get(name, b""))), None)
        request_id = chosen or f"req-{secrets.token_hex(8)}".encode()
        returned = [(_OWN, request_id)]
        if _CORRELATION in given:
            returned.append((_CORRELATION, request_id))
        scope.setdefault("state", {})["request_id"] = request_id.decode()

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *returned]
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id.decode()):
            await self.app(scope, receive, send_with_id)
