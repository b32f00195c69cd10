"""Commands that were run, in SQL."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, bindparam, delete, func, insert, select, update

from hearth.errors import Code
from hearth.execs import Exec, ExecFailure, ExecState
from hearth.store import refusals
from hearth.store.base import FIRST_PAGE, Page, PageRequest
from hearth.store.database import Database
from hearth.store.exec_store import LogUsage
from hearth.store.host_store import ALONE
from hearth.store.paging import cut_page, read_request
from hearth.store.schema import execs, sandboxes
from hearth.store.sql_paging import page_of

CHANGING = ("state", "exit_code", "failure", "ended_at", "output_bytes", "log_start", "log_bytes", "stdin_open")
UPDATE = (
    update(execs)
    .where(execs.c.id == bindparam("exec_id"))
    .values({name: bindparam(f"new_{name}") for name in CHANGING})
)
PARAMETERS_AT_ONCE = 500
"""Fewer than any SQLite takes in one statement."""


class SqlExecs:
    """``ExecStore`` over a database."""

    def __init__(self, database: Database, host: str = ALONE) -> None:
        self._database = database
        self._here = execs.c.host == host
        self._host = host

    async def save(self, found: Sequence[Exec]) -> None:
        rows = {each.id: {**exec_row(each), "host": self._host} for each in found}
        owners = {each.sandbox_id for each in found}

        def work(connection: Connection) -> None:
            known = _among(connection, execs.c.id, rows)
            there = _among(connection, sandboxes.c.id, owners)
            changed = [row for row in rows.values() if row["id"] in known]
            new = [row for row in rows.values() if row["id"] not in known and row["sandbox_id"] in there]
            if new:
                connection.execute(insert(execs), new)
            if changed:
                values = [{f"new_{name}": row[name] for name in CHANGING} | {"exec_id": row["id"]} for row in changed]
                connection.execute(UPDATE, values)

        if rows:
            await self._database.write(work)

    async def get(self, owner: str | None, exec_id: str) -> Exec:
        statement = select(execs).where(execs.c.id == exec_id, self._here)
        if owner is not None:
            statement = statement.where(execs.c.owner == owner)
        row = await self._database.read(lambda connection: connection.execute(statement).first())
        if row is None:
            raise refusals.not_found("command", exec_id)
        return exec_of(row)

    async def list(
        self,
        owner: str | None,
        *,
        sandbox_id: str,
        states: Collection[ExecState] = (),
        page: PageRequest = FIRST_PAGE,
    ) -> Page[Exec]:
        limit, after = read_request(page)
        statement = page_of(select(execs).where(execs.c.sandbox_id == sandbox_id), execs, limit, after)
        if owner is not None:
            statement = statement.where(execs.c.owner == owner)
        if states:
            statement = statement.where(execs.c.state.in_([state.value for state in states]))
        found = await self._database.read(lambda connection: connection.execute(statement).all())
        cut = cut_page(found, limit, lambda row: (row.created_at, row.id))
        return Page(items=[exec_of(row) for row in cut.items], next_cursor=cut.next_cursor)

    async def running(self) -> Sequence[Exec]:
        statement = (
            select(execs).where(execs.c.state == ExecState.RUNNING.value, self._here).order_by(execs.c.created_at)
        )
        found = await self._database.read(lambda connection: connection.execute(statement).all())
        return [exec_of(row) for row in found]

    async def known(self) -> Mapping[str, frozenset[str]]:
        statement = select(execs.c.sandbox_id, execs.c.id).where(self._here)
        found: dict[str, set[str]] = {}
        for sandbox_id, exec_id in await self._database.read(lambda connection: connection.execute(statement).all()):
            found.setdefault(sandbox_id, set()).add(exec_id)
        return {sandbox_id: frozenset(ids) for sandbox_id, ids in found.items()}

    async def usage(self) -> LogUsage:
        def summed(connection: Connection, column: Any) -> dict[str, int]:
            grouped = select(column, func.sum(execs.c.log_bytes)).where(self._here).group_by(column)
            return {key: int(total) for key, total in connection.execute(grouped)}

        def work(connection: Connection) -> LogUsage:
            over = select(execs.c.sandbox_id, func.count()).where(execs.c.ended_at.is_not(None), self._here)
            return LogUsage(
                by_sandbox=summed(connection, execs.c.sandbox_id),
                by_owner=summed(connection, execs.c.owner),
                ended={key: int(count) for key, count in connection.execute(over.group_by(execs.c.sandbox_id))},
            )

        return await self._database.read(work)

    async def ended(
        self,
        *,
        sandbox_id: str | None = None,
        owner: str | None = None,
        before: datetime | None = None,
        limit: int = 100,
    ) -> Sequence[Exec]:
        statement = (
            select(execs).where(execs.c.ended_at.is_not(None), self._here).order_by(execs.c.ended_at, execs.c.id)
        )
        if sandbox_id is not None:
            statement = statement.where(execs.c.sandbox_id == sandbox_id)
        if owner is not None:
            statement = statement.where(execs.c.owner == owner)
        if before is not None:
            statement = statement.where(execs.c.ended_at < before)
        limited = statement.limit(limit)
        return [exec_of(row) for row in await self._database.read(lambda each: each.execute(limited).all())]

    async def delete(self, exec_ids: Collection[str]) -> None:
        ids = list(exec_ids)

        def work(connection: Connection) -> None:
            for start in range(0, len(ids), PARAMETERS_AT_ONCE):
                connection.execute(delete(execs).where(execs.c.id.in_(ids[start : start + PARAMETERS_AT_ONCE])))

        if ids:
            await self._database.write(work)


def exec_row(found: Exec) -> dict[str, Any]:
    """Give the row of a command."""
    failure = found.failure
    return {
        "id": found.id,
        "sandbox_id": found.sandbox_id,
        "owner": found.owner,
        "argv": list(found.argv),
        "created_at": found.created_at,
        "cwd": found.cwd,
        "run_as": found.user,
        "kept": found.kept,
        "detached": found.detached,
        "linger_s": found.linger_s,
        "timeout_s": found.timeout_s,
        "stdin_open": found.stdin_open,
        "output_file": found.output_file,
        "state": found.state.value,
        "exit_code": found.exit_code,
        "failure": None
        if failure is None
        else {
            "code": failure.code.value,
            "brief": failure.brief,
            "details": failure.details,
            "resolution": failure.resolution,
        },
        "ended_at": found.ended_at,
        "output_bytes": found.output_bytes,
        "log_start": found.log_start,
        "log_bytes": found.log_bytes,
    }


def exec_of(row: Row[Any]) -> Exec:
    """Give the command of a row."""
    values = dict(row._mapping)
    failure = values.pop("failure")
    return Exec(
        **{name: value for name, value in values.items() if name not in ("argv", "state", "run_as", "host")},
        argv=tuple(values["argv"]),
        user=values["run_as"],
        state=ExecState(values["state"]),
        failure=None if failure is None else ExecFailure(**{**failure, "code": Code(failure["code"])}),
    )


def _among(connection: Connection, column: Any, wanted: Collection[str]) -> set[str]:
    ids, found = list(wanted), set[str]()
    for start in range(0, len(ids), PARAMETERS_AT_ONCE):
        found |= set(connection.scalars(select(column).where(column.in_(ids[start : start + PARAMETERS_AT_ONCE]))))
    return found
