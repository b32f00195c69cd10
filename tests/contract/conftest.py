"""The stores that must behave alike, each with a clock the test moves."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hearth.host.clock import ManualClock
from hearth.model import User
from hearth.quota import Quotas
from hearth.store.base import Store
from hearth.store.memory import MemoryStore
from hearth.store.migrate import migrate
from hearth.store.sql import open_store
from hearth.store.sqlite import sqlite_url


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(params=["memory", "sqlite"])
async def store(request: pytest.FixtureRequest, clock: ManualClock, tmp_path: Path) -> AsyncIterator[Store]:
    """An empty store."""
    opened: Store
    if request.param == "memory":
        opened = MemoryStore(clock=clock, quotas=Quotas())
    else:
        url = sqlite_url(tmp_path / "hearth.db")
        migrate(url)
        opened = await open_store(url, clock=clock, quotas=Quotas())
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
