"""Turns SQLite's errors into hearth's, once, at the boundary where SQL runs."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DBAPIError

from hearth.errors import HearthError, HostUnfit, NoSpace, Unavailable
from hearth.metrics.instruments import STORE_FAILURES
from hearth.store.base import StoreDamaged

PRIMARY_CODE_MASK = 0xFF
"""SQLite's extended result codes keep the primary code in the low byte (sqlite.org/rescode.html)."""


@contextmanager
def translated(database: str) -> Iterator[None]:
    """Raise hearth's errors for what the database reports inside; ``database`` names it without secrets.

    Constraint violations pass untouched: only the statement's author knows what they mean.
    """
    try:
        yield
    except DBAPIError as error:
        translation = translate(error.orig, database)
        if translation is None:
            raise
        STORE_FAILURES.labels(translation.code.value).inc()
        raise translation from error
    except sqlite3.Error as error:
        translation = translate(error, database)
        if translation is None:
            raise
        raise translation from error


def translate(error: BaseException | None, database: str) -> HearthError | None:
    """Give hearth's error for a driver's, or None when it is not the database's own condition."""
    if not isinstance(error, sqlite3.Error):
        return None
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:
        return None
    details = f"{database}: {error}"
    match code & PRIMARY_CODE_MASK:
        case sqlite3.SQLITE_FULL:
            return NoSpace(
                "the disk under the database is full",
                details=details,
                resolution="free some space; nothing of the change was stored",
            )
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return Unavailable(
                "the database is locked by another process",
                details=details,
                resolution="try again; if it lasts, find out who holds it with 'fuser'",
            )
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            return StoreDamaged(
                "the database is damaged",
                details=details,
                resolution="stop the daemon and restore the file from a backup; 'sqlite3 FILE .recover' may save rows",
            )
        case sqlite3.SQLITE_IOERR:
            return Unavailable(
                "the disk under the database failed",
                details=f"{details} ({getattr(error, 'sqlite_errorname', '')})",
                resolution="look for I/O errors in the kernel's log",
            )
        case sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_PERM | sqlite3.SQLITE_READONLY:
            return HostUnfit(
                "the database cannot be opened for writing",
                details=details,
                resolution="check the owner and mode of the file and its directory",
            )
        case _:
            return None
