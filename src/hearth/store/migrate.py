"""``python -m hearth.store.migrate < URL``: brings a database to this version's schema, all or nothing."""

from __future__ import annotations

import sys
from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection

from hearth.errors import HearthError
from hearth.store.base import StoreDamaged
from hearth.store.schema import HEAD
from hearth.store.sqlite import make_engine, make_private, sqlite_path
from hearth.store.translation import translated
from hearth.store.version import is_current

MIGRATIONS = Path(__file__).parent / "migrations"
BUSY_TIMEOUT_S = 60.0
"""How long to wait for another daemon that is migrating the same database."""


def migrate(url: str) -> bool:
    """Bring the database at ``url`` to HEAD; False when it was there already.

    Everything, the look at its version included, happens in one transaction that begins as a writer: of two that start
    at once the second waits, looks and finds nothing to do; one that is killed leaves the old schema.

    Raises:
        HearthError: the database is newer, somebody else's, locked, damaged or the disk is full.
    """
    path = sqlite_path(url)
    make_private(path)
    engine = make_engine(path, busy_timeout_s=BUSY_TIMEOUT_S, foreign_keys=False)
    try:
        with translated(str(path)), engine.connect() as connection, connection.begin():
            if is_current(connection):
                return False
            upgrade(connection)
            _check_references(connection, path)
    finally:
        engine.dispose()
    return True


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


def _check_references(connection: Connection, path: Path) -> None:
    """Do what foreign keys would have done, had they been on while tables were rebuilt."""
    broken = connection.exec_driver_sql("PRAGMA foreign_key_check").all()
    if broken:
        raise StoreDamaged(
            "the migration would leave rows without what they refer to",
            details=f"{path}: {len(broken)} rows, the first in table {broken[0][0]}",
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
