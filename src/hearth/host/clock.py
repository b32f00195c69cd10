"""The clock behind everything that waits or stamps: the system's, and one that moves only when it is told to.

``ManualClock`` is part of the product: it drives policies through a year in a moment and passes the same suite.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    """Tells the time and waits for it."""

    def now(self) -> datetime:
        """Give the wall clock's time, aware and in UTC. It may jump; never measure a duration with it."""
        ...

    def monotonic(self) -> float:
        """Give seconds since some fixed moment; never goes back."""
        ...

    async def sleep(self, duration_s: float) -> None:
        """Return once ``duration_s`` seconds of the monotonic clock have passed; 0 and less yields once."""
        ...


class SystemClock:
    """The machine's own clock."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, duration_s: float) -> None:
        await asyncio.sleep(duration_s)


class ManualClock:
    """A clock that stands still until ``advance`` moves it; belongs to one event loop."""

    def __init__(self, start: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        self._start = start
        self._elapsed_s = 0.0
        self._order = itertools.count()
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._changed = asyncio.Event()

    def now(self) -> datetime:
        return self._start + timedelta(seconds=self._elapsed_s)

    def monotonic(self) -> float:
        return self._elapsed_s

    async def sleep(self, duration_s: float) -> None:
        if duration_s <= 0:
            await asyncio.sleep(0)
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (self._elapsed_s + duration_s, next(self._order), waiter)
        heapq.heappush(self._sleepers, entry)
        self._changed.set()
        try:
            await waiter
        finally:
            if entry in self._sleepers:
                self._sleepers.remove(entry)
                heapq.heapify(self._sleepers)

    def advance(self, duration_s: float) -> None:
        """Move both clocks by ``duration_s`` seconds (≥ 0) and wake the sleepers that are due, earliest first."""
        if duration_s < 0:
            raise ValueError("a clock never goes back")
        self._elapsed_s += duration_s
        while self._sleepers and self._sleepers[0][0] <= self._elapsed_s:
            _, _, waiter = heapq.heappop(self._sleepers)
            if not waiter.done():
                waiter.set_result(None)

    async def wait_for_sleepers(self, count: int = 1) -> None:
        """Return once at least ``count`` tasks sleep on this clock, so that ``advance`` cannot come too early."""
        while len(self._sleepers) < count:
            self._changed.clear()
            await self._changed.wait()
