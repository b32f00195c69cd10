"""How hearth opens SQLite: a private file, WAL, foreign keys, a busy timeout, and transactions that begin as writers.

``synchronous=FULL``: in WAL mode NORMAL loses the last commits in a power cut. A job's row is the only record of a
volume or namespace about to be made, and a caller was told that its key is revoked: both must outlive the cut. The
price is one fdatasync a commit (docs/decisions/sqlalchemy.md has the figures).
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import msgspec
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.pool import ConnectionPoolEntry, NullPool

from hearth.errors import InvalidInput

FILE_MODE = 0o600
COMPANIONS = ("", "-wal", "-shm")
"""SQLite gives the write-ahead log and its index the mode of the database itself."""


def sqlite_url(path: Path) -> str:
    """Give the URL of a database file."""
    return URL.create("sqlite", database=str(path)).render_as_string()


def sqlite_path(url: str) -> Path:
    """Give the file a database URL names.

    Raises:
        InvalidInput: it is not ``sqlite:////absolute/path``; the error never repeats it, for it may hold a password.
    """
    try:
        parsed = make_url(url)
    except ArgumentError:
        parsed = None
    if parsed is None or parsed.get_backend_name() != "sqlite" or not Path(parsed.database or "").is_absolute():
        raise InvalidInput(
            "invalid database URL",
            details="it names neither a SQLite file by its absolute path nor a PostgreSQL server",
            resolution="use sqlite:////absolute/path/to/hearth.db or postgresql://USER@HOST/DATABASE",
            field="database_url",
        )
    return Path(parsed.database or "")


def make_private(path: Path) -> None:
    """Create the file, readable by nobody else, or take others' rights to an existing one away.

    Raises:
        OSError: the directory is missing or not ours.
    """
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE))
    except FileExistsError:
        # By name, never by descriptor: closing one would drop SQLite's locks on this file in this whole process
        # (sqlite.org/howtocorrupt.html, section 2.2).
        for companion in COMPANIONS:
            name = Path(f"{path}{companion}")
            if name.exists():
                name.chmod(FILE_MODE)


def make_engine(path: Path, *, busy_timeout_s: float, read_only: bool = False, foreign_keys: bool = True) -> Engine:
    """Give an engine whose connections are set up for hearth; it keeps none open by itself.

    A writer's transaction begins with BEGIN IMMEDIATE: one that began as a reader could not be upgraded once somebody
    else has written, and would fail however long it waited. A reader's statements each see the newest commit.

    Args:
        busy_timeout_s: seconds to wait for another process's transaction.
        foreign_keys: off for migrations, which rebuild tables that others refer to.
    """
    engine = create_engine(
        URL.create("sqlite", database=str(path)),
        poolclass=NullPool,
        isolation_level="AUTOCOMMIT",
        json_serializer=_encode_json,
        json_deserializer=msgspec.json.decode,
        connect_args={"timeout": busy_timeout_s},
    )

    def configure(connection: sqlite3.Connection, _: ConnectionPoolEntry) -> None:
        connection.isolation_level = None
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute(f"PRAGMA foreign_keys={'ON' if foreign_keys else 'OFF'}")
        connection.execute(f"PRAGMA query_only={'ON' if read_only else 'OFF'}")

    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    event.listen(engine, "connect", configure)
    if not read_only:
        event.listen(engine, "begin", begin)
    return engine


def _encode_json(value: object) -> str:
    return msgspec.json.encode(value).decode()
