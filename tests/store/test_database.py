"""The database's threads: transactions are whole, cancellation waits, closing ends everything."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, text

from hearth.errors import Unavailable
from hearth.store.sqlite_database import SqliteDatabase

INSERT = text("INSERT INTO users (id, name, admin, created_at) VALUES (:id, :id, 0, '2026-01-01 00:00:00.000000')")
COUNT = text("SELECT count(*) FROM users")


@pytest.fixture
async def database(migrated: Path) -> AsyncIterator[SqliteDatabase]:
    opened = SqliteDatabase(migrated, busy_timeout_s=1)
    yield opened
    await opened.close()


async def count(database: SqliteDatabase) -> int:
    return await database.read(lambda connection: connection.scalar(COUNT) or 0)


async def insert(database: SqliteDatabase, user_id: str) -> None:
    def work(connection: Connection) -> None:
        connection.execute(INSERT, {"id": user_id})

    await database.write(work)


async def test_a_write_that_raises_leaves_nothing(database: SqliteDatabase) -> None:
    def work(connection: Connection) -> None:
        connection.execute(INSERT, {"id": "a"})
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await database.write(work)
    assert await count(database) == 0


async def test_a_read_sees_the_write_before_it(database: SqliteDatabase) -> None:
    for number in range(20):
        await insert(database, f"u{number}")
        assert await count(database) == number + 1


async def test_a_read_does_not_wait_for_a_write_under_way(database: SqliteDatabase) -> None:
    wrote, go_on = threading.Event(), threading.Event()

    def work(connection: Connection) -> None:
        connection.execute(INSERT, {"id": "a"})
        wrote.set()
        assert go_on.wait(60)

    writing = asyncio.create_task(database.write(work))
    await asyncio.to_thread(wrote.wait, 60)
    assert await count(database) == 0
    go_on.set()
    await writing
    assert await count(database) == 1


async def test_a_cancelled_caller_leaves_only_after_the_transaction_has_ended(database: SqliteDatabase) -> None:
    wrote, go_on = threading.Event(), threading.Event()

    def work(connection: Connection) -> None:
        wrote.set()
        assert go_on.wait(60)
        connection.execute(INSERT, {"id": "a"})

    writing = asyncio.create_task(database.write(work))
    await asyncio.to_thread(wrote.wait, 60)
    writing.cancel()
    done, _ = await asyncio.wait({writing}, timeout=0.05)
    assert not done
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await writing
    assert await count(database) == 1


async def test_closing_ends_the_threads_and_refuses_more(migrated: Path) -> None:
    before = set(threading.enumerate())
    database = SqliteDatabase(migrated, busy_timeout_s=1)
    assert await count(database) == 0
    await database.close()
    await database.close()
    assert {thread.name for thread in set(threading.enumerate()) - before} == set()
    with pytest.raises(Unavailable, match="closed"):
        await count(database)
