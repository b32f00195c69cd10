"""Names what is being done for a request: the caller in every line of the log, the operation in a span."""

from __future__ import annotations

from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send
from structlog.contextvars import bind_contextvars

from hearth.api.life_operations import SANDBOX
from hearth.api.operation import Operation
from hearth.metrics.tracing import span


class Operating:
    """Around an operation's endpoint, inside of authentication. ``AccessLog`` takes away what is bound here."""

    def __init__(self, app: ASGIApp, operation: Operation[Any, Any]) -> None:
        self.app = app
        self.operation = operation

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.operation.path.startswith(SANDBOX):
            bind_contextvars(sandbox=scope["path_params"]["ref"])  # its id, once it has been found
        user = scope["state"].get("user")
        if user is not None:
            bind_contextvars(user_id=user.id)
        with span(self.operation.name):
            await self.app(scope, receive, send)
