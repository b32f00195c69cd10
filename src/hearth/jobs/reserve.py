"""Machines made ahead, for a sandbox that is not there yet."""

from __future__ import annotations

from dataclasses import dataclass

from hearth.engine.base import SleepingMachine, WaitingMachine


@dataclass(frozen=True, kw_only=True)
class Reserve:
    """A clone made ahead: a VMM that waits, or a machine that was restored, rehearsed and paused."""

    waiting: WaitingMachine | None = None
    ready: SleepingMachine | None = None

    async def take(self) -> SleepingMachine:
        """Give the machine, paused."""
        if self.ready is not None:
            return self.ready
        if self.waiting is None:
            raise AssertionError("a reserve is one of both")
        return await self.waiting.load()
