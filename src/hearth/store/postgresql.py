"""How hearth opens PostgreSQL: libpq's own options in the URL, bounded waits, READ COMMITTED, no secret in any word.

READ COMMITTED with locked rows, not SERIALIZABLE: the statements hold what must still be true in their WHERE, and what
explains a refusal must see the row that caused it (docs/decisions/postgresql.md).
"""

from __future__ import annotations

import msgspec
from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.pool import NullPool, QueuePool

from hearth.errors import InvalidInput

SCHEMES = ("postgresql", "postgres", "postgresql+psycopg")
DRIVER = "postgresql+psycopg"
CONNECT_TIMEOUT_S = 5
STATEMENT_TIMEOUT_S = 30
LOCK_TIMEOUT_S = 15
IDLE_IN_TRANSACTION_TIMEOUT_S = 60
NETWORK_TIMEOUT_S = 15
"""A server that went without a word is given up after so long."""
MIGRATION_LOCK = 0x68656172746800
"""Advisory lock of whoever makes or migrates the tables: the letters of "hearth"."""


def is_postgresql(url: str) -> bool:
    """Tell whether a URL speaks of PostgreSQL."""
    return url.partition(":")[0].lower() in SCHEMES


def parse_postgresql(url: str) -> URL:
    """Read a URL such as ``postgresql://user@host:5432/hearth?sslmode=require``.

    Raises:
        InvalidInput: it cannot be read; the error never repeats it, for it may hold a password.
    """
    scheme, _, rest = url.partition(":")
    try:
        if scheme.lower() not in SCHEMES:
            raise ArgumentError
        parsed = make_url(f"{DRIVER}:{rest}")
    except (ArgumentError, ValueError) as error:
        raise InvalidInput(
            "invalid database URL",
            details="it does not have the form of a PostgreSQL URL",
            resolution="use postgresql://USER@HOST:PORT/DATABASE; characters such as '@' or '/' in a password as %XX",
            field="database_url",
        ) from error
    if not parsed.database and "service" not in parsed.query:
        raise InvalidInput(
            "invalid database URL",
            details="it names no database",
            resolution="use postgresql://USER@HOST:PORT/DATABASE",
            field="database_url",
        )
    return parsed


def spoken_postgresql(url: URL) -> str:
    """Name a database for logs and errors: where it is and what it is called, nothing else of the URL."""
    where = url.host or url.query.get("host") or url.query.get("service") or "local"
    host = where if isinstance(where, str) else ",".join(where)
    port = f":{url.port}" if url.port else ""
    return f"postgresql {url.database or ''} at {host}{port}"


def make_postgresql_engine(url: URL, *, connections: int, statement_timeout_s: float = STATEMENT_TIMEOUT_S) -> Engine:
    """Give an engine that keeps up to ``connections`` open; none of them waits without an end.

    Args:
        connections: 0 keeps none, for a process that runs one transaction.
        statement_timeout_s: 0 for none.
    """
    settings = {
        "statement_timeout": int(statement_timeout_s * 1000),
        "lock_timeout": int(min(LOCK_TIMEOUT_S, statement_timeout_s or LOCK_TIMEOUT_S) * 1000) if connections else 0,
        "idle_in_transaction_session_timeout": IDLE_IN_TRANSACTION_TIMEOUT_S * 1000 if connections else 0,
    }
    asked = url.query.get("options", "")
    options = " ".join([*(f"-c {name}={value}" for name, value in settings.items()), str(asked)]).strip()
    return create_engine(
        url.difference_update_query(["options"]),
        **({"poolclass": QueuePool, "pool_size": connections, "max_overflow": 0} if connections else {}),
        **({} if connections else {"poolclass": NullPool}),
        isolation_level="READ COMMITTED",
        json_serializer=_encode_json,
        json_deserializer=msgspec.json.decode,
        hide_parameters=True,
        connect_args={
            "connect_timeout": CONNECT_TIMEOUT_S,
            "application_name": "hearth",
            "keepalives_idle": NETWORK_TIMEOUT_S,
            "keepalives_interval": 5,
            "keepalives_count": 3,
            "tcp_user_timeout": NETWORK_TIMEOUT_S * 1000,
            "options": options,
        },
    )


def lock_migrations(connection: Connection) -> None:
    """Wait until nobody else makes or migrates the tables, and keep others out until this transaction ends."""
    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})


def _encode_json(value: object) -> str:
    return msgspec.json.encode(value).decode()
