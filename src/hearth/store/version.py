"""Which schema a database has, by a plain read: Alembic, slow to import, stays out of the daemon's start."""

from __future__ import annotations

import sys

from sqlalchemy import Connection, inspect, text

from hearth.errors import HearthError, HostUnfit
from hearth.host import process
from hearth.store.base import StoreTooNew
from hearth.store.postgresql import lock_migrations
from hearth.store.schema import HEAD, REVISIONS, metadata

VERSION_TABLE = "alembic_version"
MIGRATE_TIMEOUT_S = 600.0


class MigrationFailed(HearthError):
    """The database could not be brought to this version's schema; it is as it was before."""


def is_current(connection: Connection) -> bool:
    """Tell whether the schema is this version's; False when it is empty or behind.

    Raises:
        StoreTooNew: a later version of hearth wrote it.
        HostUnfit: it is somebody else's database.
    """
    tables = inspect(connection).get_table_names()
    if not tables:
        return False
    if VERSION_TABLE not in tables:
        raise HostUnfit(
            "the database is not hearth's",
            details=f"it holds {len(tables)} tables and no {VERSION_TABLE}",
            resolution="choose another database, or another data directory",
        )
    revision = connection.scalar(text(f"SELECT version_num FROM {VERSION_TABLE}"))  # noqa: S608  a constant
    if revision is not None and revision not in REVISIONS:
        raise StoreTooNew(
            "the database was written by a later version of hearth",
            details=f"its schema is {revision}, this version knows up to {HEAD}",
            resolution="run that version again, or restore a backup made before it",
        )
    return bool(revision == HEAD)


def create_where_empty(connection: Connection) -> bool:
    """Make this version's tables in an empty database, in the caller's transaction; tell whether they are there now.

    The same tables come out as from running every migration (a test compares), without Alembic and its half a second.
    """
    if connection.dialect.name == "postgresql":
        lock_migrations(connection)
    if inspect(connection).get_table_names():
        return is_current(connection)
    metadata.create_all(connection)
    connection.exec_driver_sql(
        f"CREATE TABLE {VERSION_TABLE} "
        f"(version_num VARCHAR(32) NOT NULL, CONSTRAINT {VERSION_TABLE}_pkc PRIMARY KEY (version_num))"
    )
    connection.execute(text(f"INSERT INTO {VERSION_TABLE} VALUES (:head)"), {"head": HEAD})  # noqa: S608  a constant
    return True


async def migrate_in_child(url: str) -> None:
    """Run ``hearth.store.migrate`` as a process of its own; the URL goes by stdin, for it may hold a password.

    Raises:
        MigrationFailed: with what it said.
    """
    argv = [sys.executable, "-P", "-m", "hearth.store.migrate"]
    try:
        await process.run(argv, timeout_s=MIGRATE_TIMEOUT_S, stdin=url.encode())
    except process.CommandFailed as error:
        raise MigrationFailed(
            "the database could not be migrated",
            details=error.output.strip(),
            resolution="nothing was changed: put right what it names and start again",
        ) from error
