"""The helper threads that talk to SQLite: one connection each, one for reads and one for writes.

asyncio never waits for a disk, a reader never waits for a writer's fsync (WAL), and writes of this process stand in
line here instead of fighting over SQLite's lock. ``aiosqlite`` was measured against it: docs/decisions/sqlalchemy.md.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from sqlalchemy import Connection, Engine

from hearth.errors import NoSpace, Unavailable
from hearth.host.waiting import until_done
from hearth.metrics.instruments import STORE_SECONDS
from hearth.store.reserve import Reserve
from hearth.store.sqlite import make_engine
from hearth.store.translation import translated

T = TypeVar("T")


class Lane:
    """One thread with one connection, opened at its first use."""

    def __init__(self, name: str, engine: Engine, database: str, reserve: Reserve | None = None) -> None:
        """``reserve`` is what a write to a full disk falls back upon."""
        self._engine = engine
        self._reserve = reserve
        self._database = database
        self._connection: Connection | None = None
        self._closed = False
        self._seconds = STORE_SECONDS.labels(name)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"hearth-{name}")

    async def run(self, work: Callable[[Connection], T]) -> T:
        """Run ``work`` in a transaction of its own; its rows must be fetched inside.

        A caller that is cancelled waits until the transaction has ended: nothing of it happens afterwards.

        Raises:
            NoSpace, Unavailable, StoreDamaged, HostUnfit: what the database reported, translated.
        """
        if self._closed:
            raise Unavailable("the store is closed")
        running = asyncio.get_running_loop().run_in_executor(self._thread, self._work, work)
        try:
            with self._seconds.time():
                await until_done(running)
        except asyncio.CancelledError:
            running.exception()  # marks it as seen: the caller learns of the cancellation instead
            raise
        return running.result()

    def _work(self, work: Callable[[Connection], T]) -> T:
        try:
            done = self._once(work)
        except NoSpace:
            if self._reserve is None or not self._reserve.give():
                raise
            return self._once(work)
        if self._reserve is not None:
            self._reserve.take()
        return done

    def _once(self, work: Callable[[Connection], T]) -> T:
        with translated(self._database):
            if self._connection is None:
                self._connection = self._engine.connect()
            with self._connection.begin():
                return work(self._connection)

    async def close(self) -> None:
        """Let the work in line end, then close the connection and the thread."""
        if self._closed:
            return
        self._closed = True
        await until_done(asyncio.get_running_loop().run_in_executor(self._thread, self._disconnect))
        self._thread.shutdown()

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._engine.dispose()
        if self._reserve is not None:
            self._reserve.give()


class SqliteDatabase:
    """``Database`` over a SQLite file, with a lane for reads and one for writes."""

    is_shared = False

    def __init__(self, path: Path, *, busy_timeout_s: float) -> None:
        reader = make_engine(path, busy_timeout_s=busy_timeout_s, read_only=True)
        writer = make_engine(path, busy_timeout_s=busy_timeout_s)
        self.name = str(path)
        self._reads = Lane("store-reads", reader, str(path))
        self._writes = Lane("store-writes", writer, str(path), Reserve(path.with_name(f"{path.name}-reserve")))

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Run ``work``, which must not write."""
        return await self._reads.run(work)

    async def write(self, work: Callable[[Connection], T]) -> T:
        """Run ``work`` and commit, or roll back when it raises."""
        return await self._writes.run(work)

    async def close(self) -> None:
        # The reader first: the last connection to close folds the log back into the file, and a reader may not write.
        await self._reads.close()
        await self._writes.close()
