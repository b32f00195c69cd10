"""Keeps a sandbox awake for a connection: while a question waits for its answer, and then while bytes flow.

A connection that nothing moves through keeps nobody awake. Bytes for the sandbox wake it again; a machine that was only
paused goes on with them, one that went to disk has lost the connection, which then ends.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from hearth.control.residents import Resident
from hearth.control.sandboxes import Sandboxes
from hearth.guest.client import Guest
from hearth.model import Sandbox

QUIET_S = 30.0
"""After so long without a byte a connection no longer counts as use; the idle times of the sandbox begin then."""


class Presence:
    """One connection's hold on a sandbox. ``guest`` is its agent."""

    def __init__(self, sandboxes: Sandboxes, sandbox: Sandbox, guest: Guest, *, quiet_s: float = QUIET_S) -> None:
        self.sandbox = sandbox
        self.guest = guest
        self._sandboxes = sandboxes
        self._resident: Resident = sandboxes.sleep.residents[sandbox.id]
        self._quiet_s = quiet_s
        self._loop = asyncio.get_running_loop()
        self._moved_s = self._loop.time()
        self._timer: asyncio.TimerHandle | None = None
        self._use = contextlib.ExitStack()
        self._use.enter_context(self._resident.use())
        self._is_used = True

    @property
    def holds(self) -> bool:
        """True while the sandbox is kept awake."""
        return self._is_used

    def relax(self) -> None:
        """Hold it from now on only while bytes flow."""
        self._moved_s = self._loop.time()
        if self._timer is None and self._is_used:
            self._timer = self._loop.call_later(self._quiet_s, self._look)

    def moved(self) -> None:
        """Note bytes from the sandbox: who sends is awake."""
        self._moved_s = self._loop.time()
        if not self._is_used:
            self._hold()

    async def wake(self) -> None:
        """Make sure that bytes for the sandbox find it awake.

        Raises:
            NotFound, Conflict, SnapshotRefused, EngineFailed, GuestFailed, TimedOut: it cannot be woken.
        """
        self._moved_s = self._loop.time()
        if not self._is_used:
            self._hold()
        if not self._resident.settled:
            await self._sandboxes.sleep.ensure_hot(self.sandbox)

    def end(self) -> None:
        """Let go."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._release()

    def _hold(self) -> None:
        self._use.enter_context(self._resident.use())
        self._is_used = True
        if self._timer is None:
            self._timer = self._loop.call_later(self._quiet_s, self._look)

    def _release(self) -> None:
        self._use.close()
        self._is_used = False

    def _look(self) -> None:
        quiet_s = self._loop.time() - self._moved_s
        if quiet_s >= self._quiet_s:
            self._timer = None
            self._release()
        else:
            self._timer = self._loop.call_later(self._quiet_s - quiet_s, self._look)


@contextlib.asynccontextmanager
async def present(sandboxes: Sandboxes, sandbox: Sandbox) -> AsyncIterator[Presence]:
    """Wake a sandbox if need be and hold it.

    Raises:
        Conflict, SnapshotRefused, EngineFailed, GuestFailed, TimedOut: it did not come up.
    """
    sandbox = await sandboxes.creation.settle(sandbox)
    async with sandboxes.sleep.awake(sandbox) as guest:
        presence = Presence(sandboxes, sandbox, guest)
    try:
        yield presence
    finally:
        presence.end()
