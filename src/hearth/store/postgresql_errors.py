"""Turns what PostgreSQL, its driver or the network reports into hearth's errors, and tells what may be done again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum

from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, InterfaceError, OperationalError, ProgrammingError

from hearth.errors import HearthError, HostUnfit, InvalidInput, NoSpace, Unavailable
from hearth.store.base import StoreDamaged

# SQLSTATEs: PostgreSQL's manual, appendix A.
UNIQUE_VIOLATION = "23505"
CROSSED_STATES = ("40001", "40P01")
LOST_STATES = ("57P01", "57P02", "57P03", "53300", "25006")
"""The server stops, crashed, starts, has no connection left, or is a standby that was promoted elsewhere meanwhile."""
REFUSED_WORDS = ("authentication failed", "does not exist", "no pg_hba.conf entry", "not permitted to log in")
"""A connection that was refused has no SQLSTATE in libpq; an answer in another language is taken for an outage."""


class Failure(StrEnum):
    """What an error means for the transaction it ended."""

    LOST = "lost"
    """Nothing was stored; the server was not there."""
    UNKNOWN = "unknown"
    """The server went while it was asked to commit."""
    CROSSED = "crossed"
    """Nothing was stored; another transaction was in the way."""
    DUPLICATE = "duplicate"
    """Nothing was stored; such a row is there already."""
    REFUSED = "refused"
    """The server does not let us in."""
    OTHER = "other"


def judge(error: DBAPIError, *, committing: bool) -> Failure:
    """Tell what an error means; ``committing``: COMMIT had been sent."""
    state = _state_of(error)
    if state is None and isinstance(error, OperationalError | InterfaceError):
        if any(word in str(error.orig) for word in REFUSED_WORDS):
            return Failure.REFUSED
        return Failure.UNKNOWN if committing else Failure.LOST
    match state:
        case str() if state in LOST_STATES or state.startswith("08"):
            return Failure.UNKNOWN if committing else Failure.LOST
        case str() if state in CROSSED_STATES:
            return Failure.CROSSED
        case str() if state == UNIQUE_VIOLATION:
            return Failure.DUPLICATE
        case _:
            return Failure.OTHER


def translate(error: DBAPIError, failure: Failure, database: str) -> HearthError | None:
    """Give hearth's error, or None for what only the statement's author can explain: a violated constraint."""
    match failure:
        case Failure.LOST:
            return Unavailable(
                "the database does not answer",
                # Without the driver's words, which hold its address: this is told to strangers, those go to the log.
                resolution="try again; if it lasts, see whether PostgreSQL runs and can be reached; nothing was stored",
            )
        case Failure.UNKNOWN:
            return Unavailable(
                "the database went away while a change was being stored",
                resolution="it may be stored or not: look before you repeat it",
            )
        case Failure.CROSSED:
            return Unavailable(
                "too many change the same thing at once",
                details=words_of(error),
                resolution="try again; nothing of the change was stored",
            )
        case Failure.REFUSED:
            return HostUnfit(
                "the database does not let hearth in",
                details=f"{database}: {words_of(error)}",
                resolution="check user, password and name of the database; it must exist and hearth's user must own it",
            )
        case _:
            return None if isinstance(error, IntegrityError) else _by_state(error, words_of(error))


def _by_state(error: DBAPIError, details: str) -> HearthError | None:
    state = _state_of(error) or ""
    if state == "53100":
        return NoSpace(
            "the disk under the database is full",
            details=details,
            resolution="free some space on the database's server; nothing of the change was stored",
        )
    if state in ("57014", "55P03") or state.startswith(("53", "54", "58")):
        return Unavailable(
            "the database took too long or has too little of something",
            details=details,
            resolution="try again; if it lasts, look into the server's log",
        )
    if state.startswith("XX"):
        return StoreDamaged(
            "the database is damaged",
            details=details,
            resolution="look into the server's log; restore a backup if it says so",
        )
    if state.startswith(("28", "3D", "42501")):
        return HostUnfit(
            "the database does not let hearth do what it has to",
            details=details,
            resolution="hearth's user must own the database, or its schema",
        )
    if state.startswith("22") or isinstance(error, DataError):
        return InvalidInput(
            "a value cannot be stored",
            details=details,
            resolution="use shorter text, without NUL characters",
        )
    if isinstance(error, ProgrammingError) and "connection option" in str(error.orig):
        return InvalidInput(
            "invalid database URL",
            details=str(error.orig).strip(),
            resolution="after '?' stand libpq's options, such as sslmode=require",
            field="database_url",
        )
    return None


@contextmanager
def translated_postgresql(database: str) -> Iterator[None]:
    """Raise hearth's errors for what happens inside; for one transaction that nobody repeats."""
    try:
        yield
    except DBAPIError as error:
        told = translate(error, judge(error, committing=False), database)
        if told is None:
            raise
        raise told from error


def asks_for_nul(error: DBAPIError) -> bool:
    """Tell whether a statement had text with a NUL character, which no row can hold."""
    return isinstance(error, DataError) and _state_of(error) is None and "NUL" in str(error.orig)


def _state_of(error: DBAPIError) -> str | None:
    state = getattr(error.orig, "sqlstate", None)
    return state if isinstance(state, str) else None


def words_of(error: DBAPIError) -> str:
    """Give what was reported, without the statement and its values, in one line."""
    diagnosis = getattr(getattr(error.orig, "diag", None), "message_primary", None)
    return " ".join(str(diagnosis or error.orig).split())[:500]
