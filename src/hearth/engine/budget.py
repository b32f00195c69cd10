"""How much memory captures may hold at once, all together: who wants more waits for a turn, first come, first served.

A machine is paused only when its turn has come, so that none stands still because of the others.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import deque
from collections.abc import AsyncIterator

HOST_SHARE = 8
"""A capture may take this part of the host's memory: the rest is the machines' and the page cache's."""
LEAST_BYTES = 64 << 20


class Turn:
    """A part of the budget, ``held_bytes`` at this moment."""

    def __init__(self, budget: Budget, held_bytes: int, *, stays_paused: bool) -> None:
        self._budget = budget
        self.held_bytes = held_bytes
        self.stays_paused = stays_paused
        """The machine is not to run on: what it wrote may be read from it while it is written out."""

    def needs(self, wanted_bytes: int) -> None:
        """Give back what is not needed as it turns out."""
        surplus = max(0, self.held_bytes - wanted_bytes)
        self.held_bytes -= surplus
        self._budget.release(surplus)


class Budget:
    """So many bytes for all. What wants more than there are gets all of them, alone."""

    def __init__(self, total_bytes: int) -> None:
        self.total_bytes = total_bytes
        self.free_bytes = total_bytes
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @contextlib.asynccontextmanager
    async def turn(self, wanted_bytes: int, *, stays_paused: bool) -> AsyncIterator[Turn]:
        """Wait for a part of the budget and hold it inside the context."""
        turn = Turn(self, await self._take(min(wanted_bytes, self.total_bytes)), stays_paused=stays_paused)
        try:
            yield turn
        finally:
            turn.needs(0)

    def release(self, size: int) -> None:
        """Take back a part; whoever waits longest goes on as soon as there is enough."""
        self.free_bytes += size
        self._serve()

    async def _take(self, size: int) -> int:
        if not self._waiting and size <= self.free_bytes:
            self.free_bytes -= size
            return size
        served = asyncio.get_running_loop().create_future()
        self._waiting.append((size, served))
        try:
            await served
        except asyncio.CancelledError:
            if not served.cancelled():  # it was served in the same moment
                self.release(size)
            self._serve()  # those behind it may not need to wait any more
            raise
        return size

    def _serve(self) -> None:
        while self._waiting:
            size, served = self._waiting[0]
            if not served.done():
                if size > self.free_bytes:
                    return
                self.free_bytes -= size
                served.set_result(None)
            self._waiting.popleft()


def host_share() -> int:
    """Give the bytes that captures may hold at once where nobody said otherwise."""
    memory_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return max(LEAST_BYTES, memory_bytes // HOST_SHARE)
