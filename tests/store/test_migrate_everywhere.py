"""Migrations on both databases: what comes out, who comes first, and what a killed one leaves."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Inspector, inspect, text

from hearth.errors import HostUnfit
from hearth.store.base import StoreTooNew
from hearth.store.migrate import migrate, migrating, upgrade
from hearth.store.schema import HEAD, metadata
from hearth.store.sql import open_store
from hearth.store.version import VERSION_TABLE

pytestmark = pytest.mark.slow


def execute(url: str, statement: str) -> None:
    with migrating(url) as connection:
        connection.execute(text(statement))


def version_of(url: str) -> str:
    with migrating(url) as connection:
        return str(connection.scalar(text(f"SELECT version_num FROM {VERSION_TABLE}")))


def described(url: str) -> dict[str, object]:
    """Every table with its columns, keys, indexes and references."""
    with migrating(url) as connection:
        inspector: Inspector = inspect(connection)
        return {
            name: [
                sorted((each["name"], str(each["type"]), each["nullable"]) for each in inspector.get_columns(name)),
                sorted(
                    (str(each["name"]), str(each["column_names"]), each["unique"])
                    for each in inspector.get_indexes(name)
                ),
                sorted(map(repr, inspector.get_foreign_keys(name))),
                sorted(map(repr, inspector.get_unique_constraints(name))),
                inspector.get_pk_constraint(name)["constrained_columns"],
            ]
            for name in inspector.get_table_names()
        }


async def test_tables_made_at_once_equal_migrated_ones_and_what_the_code_speaks_of(empty_url: str) -> None:
    assert migrate(empty_url) is True
    migrated = described(empty_url)
    with migrating(empty_url) as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []
        metadata.drop_all(connection)
        connection.execute(text(f"DROP TABLE {VERSION_TABLE}"))
    assert described(empty_url) == {}
    await (await open_store(empty_url)).close()
    assert described(empty_url) == migrated
    assert migrate(empty_url) is False


async def test_two_daemons_that_start_at_once_on_nothing_both_get_a_store(empty_url: str) -> None:
    stores = await asyncio.gather(*(open_store(empty_url) for _ in range(3)))
    for store in stores:
        assert await store.sandboxes.count(None) == 0
        await store.close()
    assert version_of(empty_url) == HEAD


async def test_two_daemons_that_start_at_once_on_an_old_database_migrate_it_once(empty_url: str) -> None:
    with migrating(empty_url) as connection:
        upgrade(connection, "v0001")
    stores = await asyncio.gather(*(open_store(empty_url) for _ in range(2)))
    for store in stores:
        await store.close()
    assert version_of(empty_url) == HEAD


async def test_a_database_from_the_future_is_refused(migrated_url: str) -> None:
    execute(migrated_url, f"UPDATE {VERSION_TABLE} SET version_num = 'v9999'")
    with pytest.raises(StoreTooNew, match="v9999"):
        await open_store(migrated_url)
    with pytest.raises(StoreTooNew, match="v9999"):
        migrate(migrated_url)
    assert version_of(migrated_url) == "v9999"


async def test_somebody_elses_database_is_refused(empty_url: str) -> None:
    execute(empty_url, "CREATE TABLE users (id INTEGER)")
    with pytest.raises(HostUnfit, match="not hearth's"):
        await open_store(empty_url)


def test_a_migration_killed_half_way_leaves_the_old_state(empty_url: str) -> None:
    with migrating(empty_url) as connection:
        upgrade(connection, "v0002")
        connection.execute(text("INSERT INTO users VALUES ('user-1', 'ada', '0', '2026-01-02 03:04:05+00:00')"))
    before = described(empty_url)
    program = f"""
import os, signal
from hearth.store import migrate
migrate.check_references = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
migrate.migrate({empty_url!r})
"""
    killed = subprocess.run([sys.executable, "-c", program], timeout=120, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert version_of(empty_url) == "v0002"
    assert described(empty_url) == before
    assert migrate(empty_url) is True
    with migrating(empty_url) as connection:
        assert connection.scalar(text("SELECT name FROM users")) == "ada"
