"""Migrations: from nothing to head, at head, from the future, and two at once."""

from __future__ import annotations

import asyncio
import re
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from hearth.errors import HostUnfit
from hearth.store.base import StoreTooNew
from hearth.store.migrate import alembic_config, migrate
from hearth.store.schema import HEAD, REVISIONS, metadata
from hearth.store.sql import open_store
from hearth.store.sqlite import make_engine, sqlite_path, sqlite_url


def version_of(path: Path) -> str:
    connection = sqlite3.connect(path)
    try:
        return str(connection.execute("SELECT version_num FROM alembic_version").fetchone()[0])
    finally:
        connection.close()


def execute(path: Path, *statements: str) -> None:
    connection = sqlite3.connect(path)
    try:
        for statement in statements:
            connection.execute(statement)
        connection.commit()
    finally:
        connection.close()


def test_a_fresh_database_is_brought_to_head(url: str) -> None:
    assert migrate(url) is True
    assert version_of(sqlite_path(url)) == HEAD


def test_at_head_there_is_nothing_to_do(migrated: Path, url: str) -> None:
    before = migrated.read_bytes()
    assert migrate(url) is False
    assert migrated.read_bytes() == before


def test_the_migrated_schema_equals_the_tables_the_code_speaks_of(migrated: Path) -> None:
    engine = make_engine(migrated, busy_timeout_s=1, read_only=True)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []


async def test_a_database_made_at_once_equals_one_that_ran_every_migration(
    migrated: Path, url: str, tmp_path: Path
) -> None:
    made = tmp_path / "made.db"
    await (await open_store(sqlite_url(made))).close()

    assert schema_of(made) == schema_of(migrated)
    assert version_of(made) == version_of(migrated)


def schema_of(path: Path) -> list[list[str]]:
    """Every table and index as SQLite keeps it, its columns and constraints in the order of the alphabet."""
    connection = sqlite3.connect(path)
    try:
        rows = connection.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
    finally:
        connection.close()
    return sorted(sorted(part.strip() for part in re.split(r",\s|\s*[()]\s*", row[0])) for row in rows)


def test_the_schema_names_all_migrations_in_order() -> None:
    scripts = ScriptDirectory.from_config(alembic_config())
    assert tuple(script.revision for script in scripts.walk_revisions())[::-1] == REVISIONS


def test_a_database_from_the_future_is_refused_untouched(migrated: Path, url: str) -> None:
    execute(migrated, "UPDATE alembic_version SET version_num = 'v9999'")
    before = migrated.read_bytes()
    with pytest.raises(StoreTooNew, match="v9999"):
        migrate(url)
    assert migrated.read_bytes() == before


async def test_the_daemon_refuses_a_database_from_the_future(migrated: Path, url: str) -> None:
    execute(migrated, "UPDATE alembic_version SET version_num = 'v9999'")
    with pytest.raises(StoreTooNew, match="later version"):
        await open_store(url)


async def test_somebody_elses_database_is_refused(url: str) -> None:
    execute(sqlite_path(url), "CREATE TABLE users (id INTEGER)")
    with pytest.raises(HostUnfit, match="not hearth's"):
        await open_store(url)


async def test_two_daemons_that_start_at_once_on_nothing_both_get_a_store(url: str) -> None:
    stores = await asyncio.gather(open_store(url), open_store(url))
    for store in stores:
        assert await store.sandboxes.count(None) == 0
        await store.close()
    assert version_of(sqlite_path(url)) == HEAD


def test_many_migrations_at_once_do_it_once(url: str) -> None:
    argv = [sys.executable, "-m", "hearth.store.migrate"]
    running = [
        subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(4)
    ]
    for process in running:
        assert process.stdin is not None
        process.stdin.write(url.encode())
        process.stdin.close()
        process.stdin = None
    said = [process.communicate(timeout=60) for process in running]
    assert [process.returncode for process in running] == [0] * 4, said
    assert sorted(out.split()[1] for out, _ in said) == [b"already"] * 3 + [b"reached"]


def test_a_migration_killed_half_way_leaves_nothing_of_itself(url: str) -> None:
    program = f"""
import os, signal
from hearth.store import migrate
migrate.check_references = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
migrate.migrate({url!r})
"""
    killed = subprocess.run([sys.executable, "-c", program], timeout=60, check=False)
    assert killed.returncode == -signal.SIGKILL
    path = sqlite_path(url)
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT name FROM sqlite_master").fetchall() == []
    connection.close()
    assert migrate(url) is True


def test_the_daemon_starts_without_alembic(migrated: Path, url: str) -> None:
    program = f"""
import asyncio, sys
from hearth.store.sql import open_store
async def main():
    await (await open_store({url!r})).close()
asyncio.run(main())
assert "sqlalchemy" in sys.modules
assert not [name for name in sys.modules if name.split(".")[0] in ("alembic", "mako")]
"""
    subprocess.run([sys.executable, "-c", program], timeout=60, check=True)


@pytest.mark.parametrize("text", ["postgresql://u:s3cret@db", "sqlite://", "sqlite:///relative.db", "what s3cret"])
def test_a_url_that_cannot_be_used_is_told_in_words_without_repeating_it(text: str) -> None:
    argv = [sys.executable, "-m", "hearth.store.migrate"]
    refused = subprocess.run(argv, input=text.encode(), capture_output=True, timeout=60, check=False)
    assert refused.returncode == 1
    assert b"invalid database URL" in refused.stderr
    assert b"s3cret" not in refused.stderr
    assert b"Traceback" not in refused.stderr
