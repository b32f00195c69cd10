"""The stores that must behave alike, each with a clock the test moves."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from tests.database_fixtures import DATABASES
from tests.postgresql import Server

from hearth.host.clock import ManualClock
from hearth.model import User
from hearth.quota import Quotas
from hearth.store.base import Store
from hearth.store.memory import MemoryStore
from hearth.store.migrate import migrate
from hearth.store.sql import open_store
from hearth.store.sqlite import sqlite_url

STORES = ("memory", *DATABASES)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(params=STORES)
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str | None]:
    """The URL of an empty database; None for the store in memory."""
    if request.param == "memory":
        yield None
    elif request.param == "sqlite":
        url = sqlite_url(tmp_path / "hearth.db")
        migrate(url)
        yield url
    else:
        server: Server = request.getfixturevalue("postgresql")
        with server.database(request.getfixturevalue("migrated_template")) as url:
            yield url


@pytest.fixture
async def store(store_url: str | None, clock: ManualClock) -> AsyncIterator[Store]:
    """An empty store."""
    opened: Store
    if store_url is None:
        opened = MemoryStore(clock=clock, quotas=Quotas())
    else:
        opened = await open_store(store_url, clock=clock, quotas=Quotas())
    yield opened
    await opened.close()


@pytest.fixture
async def ada(store: Store) -> User:
    """A user in the store."""
    user = User(id="user-ada", name="ada")
    await store.users.create(user)
    return user


@pytest.fixture
async def bob(store: Store) -> User:
    """Another one."""
    user = User(id="user-bob", name="bob")
    await store.users.create(user)
    return user
