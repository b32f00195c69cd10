"""``python -m hearth.store.migrate < URL``: brings a database to this version's schema, all or nothing."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection

from hearth.errors import HearthError
from hearth.store.base import StoreDamaged
from hearth.store.postgresql import (
    is_postgresql,
    lock_migrations,
    make_postgresql_engine,
    parse_postgresql,
    spoken_postgresql,
)
from hearth.store.postgresql_errors import translated_postgresql
from hearth.store.schema import HEAD
from hearth.store.sqlite import make_engine, make_private, sqlite_path
from hearth.store.translation import translated
from hearth.store.version import is_current

MIGRATIONS = Path(__file__).parent / "migrations"
BUSY_TIMEOUT_S = 60.0
"""How long to wait for another daemon that is migrating the same database."""


def migrate(url: str) -> bool:
    """Bring the database at ``url`` to HEAD; False when it was there already.

    Raises:
        HearthError: the database is newer, somebody else's, locked, damaged or the disk is full.
    """
    with migrating(url) as connection:
        if is_current(connection):
            return False
        upgrade(connection)
        check_references(connection)
    return True


@contextmanager
def migrating(url: str) -> Iterator[Connection]:
    """Give a transaction that nobody else makes or migrates tables beside; it is committed at the end, or nothing is.

    Everything, the look at the version included, happens in it: of two that start at once the second waits, looks and
    finds nothing to do; one that is killed leaves the old schema.

    Raises:
        HearthError: what the database reported.
    """
    if is_postgresql(url):
        parsed = parse_postgresql(url)
        engine = make_postgresql_engine(parsed, connections=0, statement_timeout_s=0)
        errors = translated_postgresql(spoken_postgresql(parsed))
    else:
        path = sqlite_path(url)
        make_private(path)
        engine = make_engine(path, busy_timeout_s=BUSY_TIMEOUT_S, foreign_keys=False)
        errors = translated(str(path))
    try:
        with errors, engine.connect() as connection, connection.begin():
            if is_postgresql(url):
                lock_migrations(connection)
            yield connection
    finally:
        engine.dispose()


def upgrade(connection: Connection, revision: str = HEAD) -> None:
    """Run the migrations up to ``revision`` inside the caller's transaction."""
    config = alembic_config()
    config.attributes["connection"] = connection
    command.upgrade(config, revision)


def alembic_config() -> Config:
    """Give Alembic's configuration; there is no alembic.ini, the migrations are part of the package."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def check_references(connection: Connection) -> None:
    """Do what foreign keys would have done, had SQLite's been on while tables were rebuilt.

    Raises:
        StoreDamaged: rows would be left without what they refer to.
    """
    if connection.dialect.name != "sqlite":
        return
    broken = connection.exec_driver_sql("PRAGMA foreign_key_check").all()
    if broken:
        raise StoreDamaged(
            "the migration would leave rows without what they refer to",
            details=f"{connection.engine.url.database}: {len(broken)} rows, the first in table {broken[0][0]}",
        )


def main() -> int:
    """Read the URL from stdin, migrate, tell the schema's version; 1 and a sentence on stderr when it failed."""
    try:
        changed = migrate(sys.stdin.read().strip())
    except (HearthError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(f"{HEAD} {'reached' if changed else 'already there'}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
