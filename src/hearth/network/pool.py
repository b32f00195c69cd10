"""Slots made ahead of need, so that a machine's network is there at once; made again while nobody waits."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

import structlog

from hearth.network.slot import Slot

log = structlog.get_logger(__name__)

PAUSE_S = 0.05
"""Before each slot: machines that are coming up go first."""
AFTER_FAILURE_S = 5.0


class SlotPool:
    """Keeps ``size`` slots ready.

    Args:
        make, discard: of one slot.
    """

    def __init__(
        self, size: int, make: Callable[[], Awaitable[Slot]], discard: Callable[[Slot], Awaitable[None]]
    ) -> None:
        self._size = size
        self._make = make
        self._discard = discard
        self._ready: deque[Slot] = deque()
        self._wanted = asyncio.Event()
        self._filled = asyncio.Event()
        self._filler: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to make slots."""
        self._wanted.set()
        self._filler = asyncio.create_task(self._fill(), name="network slots")

    def take(self) -> Slot | None:
        """Give a slot, which is the caller's from now on; None when there is none ready."""
        self._wanted.set()
        self._filled.clear()
        return self._ready.popleft() if self._ready else None

    async def filled(self) -> None:
        """Wait until the pool is full."""
        await self._filled.wait()

    async def close(self) -> None:
        """Stop making slots and discard those there are."""
        if self._filler is not None:
            self._filler.cancel()
            await asyncio.gather(self._filler, return_exceptions=True)
        while self._ready:
            await self._discard(self._ready.popleft())

    async def _fill(self) -> None:
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            while len(self._ready) < self._size:
                await asyncio.sleep(PAUSE_S)
                try:
                    self._ready.append(await self._make())
                except Exception as error:  # noqa: BLE001 - without a pool machines are slower, not fewer
                    log.warning("a network slot could not be made ahead", error=str(error))
                    await asyncio.sleep(AFTER_FAILURE_S)
            if not self._wanted.is_set():
                self._filled.set()
