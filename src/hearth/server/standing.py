"""Whether somebody who was let in would be let in still: keys end, and users may go or lose their rights."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

from starlette.types import Scope

from hearth.control.users import MYSELF, Caller, Users
from hearth.errors import NotFound, Unauthenticated, Unavailable
from hearth.server.disconnect import end_task

Result = TypeVar("Result")

LOOK_S = 15.0
"""How often what another daemon on the same database may have changed is looked at; our own changes tell at once."""
STATE = "standing"
"""Where a scope's ``state`` holds its caller's."""


class KeyEnded(Unauthenticated):
    """Who asked was let in, and would not be any more."""

    def __init__(self) -> None:
        super().__init__(
            "the API key has ended",
            details="it was valid when the request came",
            resolution="ask again with another key",
        )


@dataclass(frozen=True, kw_only=True)
class Standing:
    """One caller whom something that lasts was opened for."""

    users: Users
    caller: Caller

    async def during(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Run ``work``; cancel it, and wait until it has ended, when the caller's key ends first.

        Raises:
            KeyEnded: it has.
        """
        working = asyncio.create_task(work, name="request work")
        watching = asyncio.create_task(self.ended(), name="key watch")
        try:
            await asyncio.wait((working, watching), return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                return working.result()
            raise KeyEnded
        finally:
            await end_task(watching)
            await end_task(working)

    async def ended(self) -> None:
        """Wait until the caller would be let in no more."""
        stands = True
        while stands:
            turn = self.users.turn
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._pause_s()):
                    await turn.wait()
            with contextlib.suppress(Unavailable):  # a database that is away says nothing of anybody
                stands = await still_stands(self.users, self.caller)

    def _pause_s(self) -> float:
        expires_at = None if self.caller.key is None else self.caller.key.expires_at
        if expires_at is None:
            return LOOK_S
        return min(LOOK_S, max(0.05, (expires_at - datetime.now(UTC)).total_seconds()))


async def while_allowed(scope: Scope, work: Coroutine[Any, Any, Result]) -> Result:
    """Run ``work`` as long as the key holds that its request came with; without one to its end.

    Raises:
        KeyEnded: it does not hold any more; ``work`` was cancelled.
    """
    standing: Standing | None = scope.get("state", {}).get(STATE)
    return await (work if standing is None else standing.during(work))


async def still_stands(users: Users, caller: Caller) -> bool:
    """Tell whether a caller's key is still valid, and its user what it was."""
    try:
        user = await users.get(caller.user, MYSELF)
        keys = await users.keys(user, MYSELF)
    except NotFound:
        return False
    known = caller.key is None or any(key.id == caller.key.id and key.is_valid(datetime.now(UTC)) for key in keys)
    return known and user.admin == caller.user.admin
