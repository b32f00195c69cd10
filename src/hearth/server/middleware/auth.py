"""Bearer authentication for the operations that need it: the token is looked up, never logged, never kept."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from hearth.control.users import Users
from hearth.errors import Unauthenticated


class Authenticated:
    """Puts the ``user`` into the scope's state, or raises before anything of the body is read."""

    def __init__(self, app: ASGIApp, *, users: Users) -> None:
        self.app = app
        self.users = users

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        user = await self.users.authenticate(bearer_token(scope))
        scope["state"]["user"] = user
        scope["state"]["log"] = {"user": user.name}
        await self.app(scope, receive, send)


def bearer_token(scope: Scope) -> str:
    """Give the token of the Authorization header.

    Raises:
        Unauthenticated: there is none, or more than one, or it is of another kind.
    """
    given = [value for name, value in scope["headers"] if name == b"authorization"]
    scheme, _, token = (given[0] if len(given) == 1 else b"").partition(b" ")
    if scheme.lower() != b"bearer" or not token.strip():
        raise Unauthenticated(
            "a token is needed",
            details="the request has no 'Authorization: Bearer …' header",
            resolution="set HEARTH_TOKEN, or read the token from admin.key in the data directory",
        )
    return token.strip().decode("latin-1")
