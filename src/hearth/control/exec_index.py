"""Writes what is known of commands into the store, many at a time: a command that takes a millisecond shall not wait
for a database, nor a hundred of them write it a hundred times.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from hearth.errors import HearthError
from hearth.execs import Exec
from hearth.store.base import Store

log = structlog.get_logger(__name__)

GATHER_S = 0.25


class ExecIndex:
    """Commands whose rows are to be written; ``run`` it as long as there are commands."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._dirty: dict[str, Callable[[], Exec]] = {}
        self._wanted = asyncio.Event()
        self._lock = asyncio.Lock()

    def save_soon(self, exec_id: str, look: Callable[[], Exec]) -> None:
        """Have a command remembered in a moment, as ``look`` gives it then."""
        self._dirty[exec_id] = look
        self._wanted.set()

    async def save(self, exec_id: str, look: Callable[[], Exec]) -> None:
        """Remember a command as it is now, for good. Raises what the store does."""
        self._dirty[exec_id] = look
        await self.flush()

    async def flush(self) -> None:
        """Write what is waiting; afterwards the store knows all. Raises what the store does."""
        async with self._lock:
            batch, self._dirty = self._dirty, {}
            self._wanted.clear()
            if not batch:
                return
            try:
                await self._store.execs.save([look() for look in batch.values()])
            except BaseException:
                self._dirty = batch | self._dirty
                raise

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            await self._wanted.wait()
            await asyncio.sleep(GATHER_S)
            try:
                await self.flush()
            except HearthError as error:
                log.error("commands were not stored", error=str(error))
