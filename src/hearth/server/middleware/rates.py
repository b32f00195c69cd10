"""Bounds how often somebody asks over the network: by address before anything else, by user once it is known who.

Requests by the host's own socket are not counted: only the daemon's own user can open it.
"""

from __future__ import annotations

import time
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from hearth.api.operation import Operation
from hearth.control.rates import RateName, Turnstile
from hearth.errors import Unauthenticated
from hearth.server.peer import address_of


class AddressLimited:
    """Around everything: so many requests from one address, and so many of those from nobody."""

    def __init__(self, app: ASGIApp, *, turnstile: Turnstile) -> None:
        self.app = app
        self.turnstile = turnstile

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        address = address_of(scope)
        if address is None:
            await self.app(scope, receive, send)
            return
        await self.turnstile.take_address("address", address, time.monotonic())
        try:
            await self.app(scope, receive, send)
        except Unauthenticated:
            await self.turnstile.take_address("failures", address, time.monotonic())
            raise


class UserLimited:
    """Around one operation: so many of its kind for each user."""

    def __init__(self, app: ASGIApp, *, turnstile: Turnstile, operation: Operation[Any, Any]) -> None:
        self.app = app
        self.turnstile = turnstile
        self.name: RateName = rate_of(operation)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if address_of(scope) is not None:
            await self.turnstile.take(self.name, scope["state"]["user"].id, time.monotonic())
        await self.app(scope, receive, send)


def rate_of(operation: Operation[Any, Any]) -> RateName:
    """Tell which bound an operation counts for."""
    if not operation.changes and operation.conversation is None:
        return "read"
    return "create" if operation.creates or operation.gives_secret else "use"
