"""The helper threads that talk to PostgreSQL, a connection each; what a lost one did not store is done again.

A transaction is repeated where the server has said, or the moment proves, that nothing of it was stored: a deadlock, a
row that somebody else inserted first, a connection lost before COMMIT was sent. One lost during COMMIT is not.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

import structlog
from sqlalchemy import Connection, Engine
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError

from hearth.errors import NotFound, Unavailable
from hearth.host.waiting import until_done
from hearth.metrics.instruments import STORE_FAILURES, STORE_RETRIES, STORE_SECONDS
from hearth.store.postgresql import make_postgresql_engine, spoken_postgresql
from hearth.store.postgresql_errors import Failure, asks_for_nul, judge, translate, words_of

log = structlog.get_logger(__name__)

T = TypeVar("T")

CONNECTIONS = 8
"""Of one daemon; a server takes 100 by default, from all who use it."""
RECONNECT_S = 5.0
"""So long a lost server may take to come back before a caller is told; restarting one takes a second or two."""
ATTEMPTS = 10
"""Of a transaction that others get in the way of."""
FIRST_PAUSE_S = 0.02
LONGEST_PAUSE_S = 0.5


class PostgresqlDatabase:
    """``Database`` over a PostgreSQL server."""

    is_shared = True

    def __init__(self, url: URL, *, connections: int = CONNECTIONS, reconnect_s: float = RECONNECT_S) -> None:
        self.name = spoken_postgresql(url)
        self._reconnect_s = reconnect_s
        self._writes = make_postgresql_engine(url, connections=connections)
        # One statement, one round trip: READ COMMITTED shows each of them the newest commit anyway.
        self._reads = self._writes.execution_options(isolation_level="AUTOCOMMIT")
        self._threads = ThreadPoolExecutor(max_workers=connections, thread_name_prefix="hearth-store")
        self._closed = False
        self._is_lost = False

    async def read(self, work: Callable[[Connection], T]) -> T:
        with STORE_SECONDS.labels("store-reads").time():
            return await self._run(self._reads, work)

    async def write(self, work: Callable[[Connection], T]) -> T:
        with STORE_SECONDS.labels("store-writes").time():
            return await self._run(self._writes, work)

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        loop = asyncio.get_running_loop()
        await until_done(loop.run_in_executor(None, self._threads.shutdown))
        self._writes.dispose()

    async def _run(self, engine: Engine, work: Callable[[Connection], T]) -> T:
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + self._reconnect_s
        for attempt, pause_s in enumerate(_pauses(), start=1):
            attempted = _Attempt(engine, work)
            try:
                found = await self._in_thread(attempted)
            except DBAPIError as error:
                if engine is self._reads and asks_for_nul(error):
                    raise NotFound("there is no such thing", details="its name holds a NUL character") from error
                failure = judge(error, committing=attempted.committing and engine is self._writes)
                if failure in (Failure.LOST, Failure.UNKNOWN):
                    self._tell(words_of(error))
                if not self._may_repeat(failure, attempt, has_time=loop.time() + pause_s < deadline_s):
                    told = translate(error, failure, self.name)
                    if told is None:
                        raise
                    STORE_FAILURES.labels(told.code.value).inc()
                    raise told from error
                STORE_RETRIES.labels(failure.value).inc()
            else:
                self._tell(None)
                return found
            await asyncio.sleep(pause_s)
        raise AssertionError("the pauses never end")

    def _may_repeat(self, failure: Failure, attempt: int, *, has_time: bool) -> bool:
        if self._closed:
            return False
        match failure:
            case Failure.LOST:
                return has_time
            case Failure.CROSSED:
                return attempt < ATTEMPTS
            case Failure.DUPLICATE:
                # Once: the second run sees the row that was in the way, and knows what it means.
                return attempt == 1
            case _:
                return False

    async def _in_thread(self, attempt: _Attempt[T]) -> T:
        if self._closed:
            raise Unavailable("the store is closed")
        running = asyncio.get_running_loop().run_in_executor(self._threads, attempt)
        try:
            await until_done(running)
        except asyncio.CancelledError:
            running.exception()  # marks it as seen: the caller learns of the cancellation instead
            raise
        return running.result()

    def _tell(self, lost: str | None) -> None:
        """Tell the log once that the server went, and once that it came back."""
        if lost is not None and not self._is_lost:
            log.warning("the database does not answer; trying again", database=self.name, error=lost)
        if lost is None and self._is_lost:
            log.info("the database answers again", database=self.name)
        self._is_lost = lost is not None


class _Attempt(Generic[T]):
    """One try of a transaction; ``committing`` tells how far it came."""

    def __init__(self, engine: Engine, work: Callable[[Connection], T]) -> None:
        self._engine = engine
        self._work = work
        self.committing = False

    def __call__(self) -> T:
        with self._engine.connect() as connection, connection.begin():
            found = self._work(connection)
            self.committing = True
        return found


def _pauses() -> Iterator[float]:
    """Give pauses in seconds that grow, without end, and differ between those who wait for the same thing."""
    longest_s = FIRST_PAUSE_S
    while True:
        yield longest_s * random.uniform(0.5, 1.0)  # noqa: S311  nobody has to be unable to guess it
        longest_s = min(2 * longest_s, LONGEST_PAUSE_S)
