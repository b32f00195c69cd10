"""Wakes sandboxes for strangers: each once, however many wait, and only so many from disk at a time.

A wake from disk costs memory, disk and CPU of the host, and anybody may ask for one: what comes beyond the bound is
told to come again.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any

import structlog

from hearth.control.sandboxes import Sandboxes
from hearth.control.wakeable import BOOTABLE
from hearth.errors import HearthError, Unavailable
from hearth.model import Heat, Sandbox

log = structlog.get_logger(__name__)

MAX_AT_ONCE = 4
MAX_WAITING = 256
"""Requests that wait for wakes, all together; each holds a connection and what it has sent."""
MAX_AT_ONCE_OF_OWNER = 3
MAX_WAITING_OF_OWNER = 192
"""One owner's sandboxes, which may be slow on purpose, leave room for everybody else's."""
BUSY_RETRY_S = 2
BOOT_AGAIN_S = 60.0
"""A sandbox whose machine had ended is booted from its disk; one that keeps dying not more often than this."""


IsCold = Callable[[Sandbox], bool]
MakeHot = Callable[[Sandbox, bool], Coroutine[Any, Any, None]]
"""Told whether a sandbox without memory may be booted from its disk."""


class Busy(Unavailable):
    """Too much is being woken; ``retry_after_s`` tells when to ask again."""

    def __init__(self, details: str) -> None:
        self.retry_after_s = BUSY_RETRY_S
        super().__init__("too many sandboxes are being woken", details=details, resolution="try again in a moment")


class Wakes:
    """The wakes from disk that are under way."""

    def __init__(
        self,
        is_cold: IsCold,
        make_hot: MakeHot,
        *,
        at_once: int = MAX_AT_ONCE,
        at_once_of_owner: int = MAX_AT_ONCE_OF_OWNER,
        waiting: int = MAX_WAITING,
        waiting_of_owner: int = MAX_WAITING_OF_OWNER,
    ) -> None:
        self._is_cold = is_cold
        self._make_hot = make_hot
        self._at_once = at_once
        self._at_once_of_owner = at_once_of_owner
        self._waiting_limit = waiting
        self._waiting_of_owner = waiting_of_owner
        self._waiting: Counter[str] = Counter()
        self._flights: dict[str, asyncio.Task[None]] = {}
        self._owners: dict[str, str] = {}
        self._booted_s: dict[str, float] = {}

    def __len__(self) -> int:
        return len(self._flights)

    async def wake(self, sandbox: Sandbox, *, patience_s: float) -> bool:
        """Have a sandbox that lies on disk woken; False when that takes longer than ``patience_s``, and goes on.

        Raises:
            Busy: others are being woken.
            Conflict, SnapshotRefused, EngineFailed, GuestFailed, TimedOut: it cannot be woken.
        """
        flight = self._flights.get(sandbox.id)
        if flight is None:
            if not self._is_cold(sandbox):
                return True
            flight = self._begin(sandbox)
        owner = sandbox.owner
        if self._waiting.total() >= self._waiting_limit or self._waiting[owner] >= self._waiting_of_owner:
            raise Busy(f"{self._waiting.total()} requests wait already")
        self._waiting[owner] += 1
        try:
            await asyncio.wait((flight,), timeout=patience_s)
        finally:
            self._waiting[owner] -= 1
            if not self._waiting[owner]:
                del self._waiting[owner]
        if not flight.done():
            return False
        flight.result()
        return True

    async def close(self) -> None:
        """Wait for the wakes under way."""
        await asyncio.gather(*self._flights.values(), return_exceptions=True)

    def _begin(self, sandbox: Sandbox) -> asyncio.Task[None]:
        of_owner = sum(owner == sandbox.owner for owner in self._owners.values())
        if len(self._flights) >= self._at_once or of_owner >= self._at_once_of_owner:
            raise Busy(f"{len(self._flights)} are being woken already")
        force = self._may_boot(sandbox)
        flight = asyncio.create_task(self._make_hot(sandbox, force), name=f"wake {sandbox.id} for the public")
        self._flights[sandbox.id] = flight
        self._owners[sandbox.id] = sandbox.owner
        flight.add_done_callback(lambda done: self._landed(sandbox.id, done))
        return flight

    def _may_boot(self, sandbox: Sandbox) -> bool:
        """Tell whether to boot a sandbox whose machine has ended by itself: there is nothing left to lose."""
        if sandbox.state not in BOOTABLE:
            return False
        now_s = asyncio.get_running_loop().time()
        last_s = self._booted_s.get(sandbox.id)
        if last_s is not None and now_s - last_s < BOOT_AGAIN_S:
            return False
        self._booted_s = {known: at_s for known, at_s in self._booted_s.items() if now_s - at_s < BOOT_AGAIN_S}
        self._booted_s[sandbox.id] = now_s
        return True

    def _landed(self, sandbox_id: str, flight: asyncio.Task[None]) -> None:
        del self._flights[sandbox_id], self._owners[sandbox_id]
        error = None if flight.cancelled() else flight.exception()
        if error is not None:
            log.warning("not woken", sandbox=sandbox_id, error=str(error))
            if not isinstance(error, HearthError):
                log.error("unexpected error in a wake", sandbox=sandbox_id, exc_info=error)


def wakes_of(sandboxes: Sandboxes) -> Wakes:
    """Give the wakes of a daemon's sandboxes."""

    def is_cold(sandbox: Sandbox) -> bool:
        return sandboxes.heat(sandbox) is Heat.COLD

    async def make_hot(sandbox: Sandbox, force: bool) -> None:
        await sandboxes.sleep.ensure_hot(await sandboxes.creation.settle(sandbox), force=force)

    return Wakes(is_cold, make_hot)
