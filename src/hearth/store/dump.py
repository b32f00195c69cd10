"""A database's rows as lines of JSON, table by table, and back: the same from SQLite and from PostgreSQL.

A table's first line tells its columns and their kinds, so that rows of an older schema are read into tables of that
schema and migrated there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.types import TypeEngine

from hearth.errors import InvalidInput
from hearth.store.base import StoreDamaged
from hearth.store.migrate import BUSY_TIMEOUT_S, check_references, upgrade
from hearth.store.postgresql import is_postgresql, make_postgresql_engine, parse_postgresql, spoken_postgresql
from hearth.store.postgresql_errors import translated_postgresql
from hearth.store.schema import HEAD, UtcDateTime
from hearth.store.sqlite import make_engine, sqlite_path
from hearth.store.translation import translated
from hearth.store.version import VERSION_TABLE, is_current

ROWS_AT_ONCE = 500
KINDS: dict[str, TypeEngine[Any]] = {
    "text": sa.Text(),
    "integer": sa.BigInteger(),
    "number": sa.Float(),
    "boolean": sa.Boolean(),
    "time": UtcDateTime(),
    "bytes": sa.LargeBinary(),
    "json": sa.JSON(none_as_null=True),
}
PYTHON_TYPES: dict[str, Any] = {
    **{"text": str, "integer": int, "number": float, "boolean": bool},
    **{"time": datetime, "bytes": bytes, "json": Any},
}


class TableHead(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The first line of a table: its name, and its columns' kinds by name."""

    table: str
    columns: dict[str, str]


@contextmanager
def unchanging(url: str) -> Iterator[Connection]:
    """Give a connection that sees one state of the database for as long as it lasts, whoever writes meanwhile.

    Raises:
        InvalidInput: there is no such database.
        HearthError: it is another program's or a later version's, or what it reported.
    """
    if is_postgresql(url):
        parsed = parse_postgresql(url)
        engine = make_postgresql_engine(parsed, connections=0, statement_timeout_s=0)
        options = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
        errors, begin = translated_postgresql(spoken_postgresql(parsed)), "SELECT 1"
    else:
        path = sqlite_path(url)
        if not path.exists():
            raise InvalidInput("there is no database", details=str(path), resolution="is this the data directory?")
        engine = make_engine(path, busy_timeout_s=BUSY_TIMEOUT_S, read_only=True)
        # Deferred: the first read takes the snapshot, and nobody waits for it (sqlite.org/isolation.html).
        options, errors, begin = {}, translated(str(path)), "BEGIN DEFERRED"
    try:
        with errors, engine.connect().execution_options(**options) as connection:
            connection.exec_driver_sql(begin)
            is_current(connection)
            yield connection
    finally:
        engine.dispose()


def revision_of(connection: Connection) -> str:
    """Give the version of the schema."""
    return str(connection.scalar(sa.text(f"SELECT version_num FROM {VERSION_TABLE}")))  # noqa: S608  a constant


def tables_of(connection: Connection) -> Sequence[str]:
    """Name hearth's tables, those first that others refer to."""
    return [str(table.name) for table in _reflected(connection).sorted_tables if table.name != VERSION_TABLE]


def dump_table(connection: Connection, table: str) -> Iterator[bytes]:
    """Give a table line by line; the order of rows says nothing."""
    head = TableHead(
        table=table,
        columns={str(each["name"]): kind_of(each["type"]) for each in sa.inspect(connection).get_columns(table)},
    )
    yield msgspec.json.encode(head) + b"\n"
    statement = sa.select(table_of(head)).execution_options(yield_per=ROWS_AT_ONCE)
    for row in connection.execute(statement):
        yield msgspec.json.encode([_plain(value) for value in row]) + b"\n"


def drop_everything(connection: Connection) -> None:
    """Drop all tables; whose they are was asked before."""
    _reflected(connection).drop_all(connection)


def load(connection: Connection, revision: str, tables: Iterable[tuple[str, Iterable[bytes]]]) -> dict[str, int]:
    """Make the tables of ``revision``, fill them and migrate them to this version's, in the caller's transaction.

    Args:
        tables: names and lines, in the order of ``tables_of``.

    Returns:
        How many rows each table got.

    Raises:
        StoreDamaged: a line does not fit.
    """
    upgrade(connection, revision)
    known = set(tables_of(connection))
    counts = {}
    for name, lines in tables:
        if name not in known:
            raise StoreDamaged("the backup holds a table that its schema has not", details=f"{name}, at {revision}")
        counts[name] = _load_table(connection, name, iter(lines))
    upgrade(connection, HEAD)
    check_references(connection)
    return counts


def _load_table(connection: Connection, name: str, lines: Iterator[bytes]) -> int:
    try:
        head = msgspec.json.decode(next(lines, b""), type=TableHead)
        if head.table != name or not head.columns.keys() <= _columns_of(connection, name):
            raise ValueError("the head is another table's")
        kinds = [PYTHON_TYPES[kind] for kind in head.columns.values()]
        rows = (_row(head, kinds, line) for line in lines)
        return _insert(connection, table_of(head), rows, _self_reference(connection, name))
    except (ValueError, KeyError, msgspec.DecodeError) as error:
        raise StoreDamaged("a table of the backup cannot be read", details=f"{name}: {error}") from error


def _row(head: TableHead, kinds: Sequence[Any], line: bytes) -> dict[str, Any]:
    values = zip(head.columns, kinds, msgspec.json.decode(line, type=list[Any]), strict=True)
    return {name: None if value is None else msgspec.convert(value, kind) for name, kind, value in values}


def _insert(
    connection: Connection, table: sa.TableClause, rows: Iterator[dict[str, Any]], reference: str | None
) -> int:
    count, batch, later = 0, list[dict[str, Any]](), list[tuple[str, str]]()
    for row in rows:
        if reference is not None and row[reference] is not None:
            later.append((row["id"], row[reference]))
            row[reference] = None
        batch.append(row)
        if len(batch) == ROWS_AT_ONCE:
            connection.execute(sa.insert(table), batch)
            count, batch = count + len(batch), []
    if batch:
        connection.execute(sa.insert(table), batch)
    for row_id, other in later:  # only now is everything there that a row may refer to
        connection.execute(sa.update(table).where(table.c.id == row_id).values({reference: other}))
    return count + len(batch)


def _self_reference(connection: Connection, name: str) -> str | None:
    """Name the column that refers to other rows of its own table."""
    for each in sa.inspect(connection).get_foreign_keys(name):
        if each["referred_table"] == name:
            return str(each["constrained_columns"][0])
    return None


def _columns_of(connection: Connection, name: str) -> set[str]:
    return {each["name"] for each in sa.inspect(connection).get_columns(name)}


def _reflected(connection: Connection) -> sa.MetaData:
    found = sa.MetaData()
    found.reflect(connection)
    return found


def table_of(head: TableHead) -> sa.TableClause:
    """Give a table to select from and insert into, with values of the same types from whichever database."""
    return sa.table(head.table, *(sa.column(name, KINDS[kind]) for name, kind in head.columns.items()))


def kind_of(found: TypeEngine[Any]) -> str:
    """Give the kind of a reflected column. Raises StoreDamaged when it is none that hearth uses."""
    for kinds, name in (
        (sa.Boolean, "boolean"),
        (sa.DateTime, "time"),
        (sa.LargeBinary, "bytes"),
        (sa.JSON, "json"),
        (sa.Integer, "integer"),
        (sa.Float, "number"),
        (sa.String, "text"),
    ):
        if isinstance(found, kinds):
            return name
    raise StoreDamaged("a column has a type that hearth does not use", details=str(found))


def _plain(value: Any) -> Any:
    return value.astimezone(UTC) if isinstance(value, datetime) else value
