"""Authentication of the operations that need it, and what the caller's key is for; a secret is never logged or kept."""

from __future__ import annotations

from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from hearth.api.limits import PREFIX
from hearth.api.operation import Operation
from hearth.control.daemon import Daemon
from hearth.control.users import Caller, require_scope
from hearth.errors import Forbidden
from hearth.server.middleware.credentials import identify
from hearth.server.standing import STATE, Standing
from hearth.store.refusals import not_found

OF_SANDBOX = f"{PREFIX}/sandboxes/{{ref}}"
OF_COMMAND = f"{PREFIX}/execs/{{ref}}"


class Authenticated:
    """Puts ``caller`` and ``user`` into the scope's state, or raises before anything is done."""

    def __init__(self, app: ASGIApp, *, daemon: Daemon, operation: Operation[Any, Any]) -> None:
        self.app = app
        self.daemon = daemon
        self.operation = operation

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        caller, receive = await identify(self.daemon, scope, receive)
        scope["state"]["caller"] = caller
        scope["state"]["user"] = caller.user
        scope["state"][STATE] = Standing(users=self.daemon.users, caller=caller)
        scope["state"]["log"] = {"user": caller.user.name}
        require_scope(caller, self.operation.needed_scope)
        if caller.sandbox_id is not None:
            await self._confine(caller, caller.sandbox_id, scope)
        await self.app(scope, receive, send)

    async def _confine(self, caller: Caller, sandbox_id: str, scope: Scope) -> None:
        """Keep a key for one sandbox to that; from here on its id stands for it, whatever name it has a moment later.

        Raises:
            NotFound: the call is about another sandbox.
            Forbidden: it is about something else.
        """
        if f"{self.operation.path}/".startswith(f"{OF_COMMAND}/"):
            exec_id = scope["path_params"]["ref"]
            if (await self.daemon.execs.get(caller.user, exec_id)).sandbox_id != sandbox_id:
                raise not_found("command", exec_id)
            return
        if not f"{self.operation.path}/".startswith(f"{OF_SANDBOX}/"):
            raise Forbidden(
                "the API key is for one sandbox",
                details=f"it opens {sandbox_id} and nothing else",
                resolution="use another key",
            )
        reference = scope["path_params"]["ref"]
        if (await self.daemon.sandboxes.get(caller.user, reference)).id != sandbox_id:
            raise not_found("sandbox", reference)
        scope["path_params"]["ref"] = sandbox_id
