"""Sandboxes in SQL."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from sqlalchemy import ColumnElement, Connection, bindparam, delete, exists, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from hearth.errors import HearthError
from hearth.host.clock import Clock
from hearth.model import ExitCause, Lifetime, Sandbox, SandboxChanges, SandboxSpec, SandboxState
from hearth.quota import Amounts
from hearth.store import refusals, rows
from hearth.store.base import CHANGEABLE, FIRST_PAGE, Page, PageRequest, SandboxExists
from hearth.store.database import Database
from hearth.store.host_store import ALONE
from hearth.store.paging import cut_page, read_request
from hearth.store.quota_store import amounts_of_sandbox, egress_of
from hearth.store.schema import sandboxes, users
from hearth.store.sql_hosts import missing
from hearth.store.sql_paging import page_of
from hearth.store.sql_quotas import SqlQuotas

GET = select(*rows.SANDBOX).where(sandboxes.c.id == bindparam("sandbox_id"))
HERE = sandboxes.c.host == bindparam("host")
OF_OWNER = select(*rows.SANDBOX).where(sandboxes.c.owner == bindparam("owner"), sandboxes.c.name == bindparam("name"))


class SqlSandboxes:
    """``SandboxStore`` over a database."""

    def __init__(self, database: Database, clock: Clock, quotas: SqlQuotas, host: str = ALONE) -> None:
        self._database = database
        self._clock = clock
        self._quotas = quotas
        self._host = host

    async def create(self, sandbox: Sandbox) -> None:
        refusals.check_storable(sandbox.spec)
        row = {**rows.sandbox_row(sandbox), "host": self._host}

        def work(connection: Connection) -> None:
            if connection.execute(OF_OWNER, {"owner": sandbox.owner, "name": sandbox.spec.name}).first() is None:
                self._quotas.enter(connection, sandbox.owner, amounts_of_sandbox(sandbox))
            try:
                with connection.begin_nested():
                    connection.execute(insert(sandboxes), row)
            except IntegrityError as error:
                raise _why_refused(connection, sandbox, self._host) from error

        await self._database.write(work)

    async def get(self, sandbox_id: str) -> Sandbox:
        parameters = {"sandbox_id": sandbox_id, "host": self._host}
        row = await self._database.read(lambda connection: connection.execute(GET.where(HERE), parameters).first())
        if row is None:
            raise refusals.not_found("sandbox", sandbox_id)
        return rows.sandbox_of(row)

    async def resolve(self, owner: str | None, reference: str) -> Sandbox:
        here = sandboxes.c.host == self._host
        mine = (here,) if owner is None else (here, sandboxes.c.owner == owner)

        def work(connection: Connection) -> Sandbox:
            row = connection.execute(select(*rows.SANDBOX).where(sandboxes.c.id == reference, *mine)).first()
            if row is not None:
                return rows.sandbox_of(row)
            named = connection.execute(select(*rows.SANDBOX).where(sandboxes.c.name == reference, *mine).limit(2)).all()
            if not named:
                raise missing(connection, sandboxes, "sandbox", owner, reference)
            if len(named) > 1:
                raise refusals.ambiguous("sandbox", reference)
            return rows.sandbox_of(named[0])

        return await self._database.read(work)

    async def list(
        self,
        owner: str | None,
        *,
        labels: Mapping[str, str] | None = None,
        states: Collection[SandboxState] = (),
        page: PageRequest = FIRST_PAGE,
    ) -> Page[Sandbox]:
        limit, after = read_request(page)
        statement = select(*rows.SANDBOX).where(sandboxes.c.host == self._host)
        if owner is not None:
            statement = statement.where(sandboxes.c.owner == owner)
        if states:
            statement = statement.where(sandboxes.c.state.in_(sorted(states)))
        for key, value in (labels or {}).items():
            statement = statement.where(self._has_label(key, value))
        statement = page_of(statement, sandboxes, limit, after)
        found = await self._database.read(lambda connection: connection.execute(statement).all())
        cut = cut_page(found, limit, lambda row: (row.created_at, row.id))
        return Page(items=[rows.sandbox_of(row) for row in cut.items], next_cursor=cut.next_cursor)

    async def count(self, owner: str | None) -> int:
        statement = select(func.count()).select_from(sandboxes).where(sandboxes.c.host == self._host)
        if owner is not None:
            statement = statement.where(sandboxes.c.owner == owner)
        return await self._database.read(lambda connection: connection.scalar(statement) or 0)

    async def transition(
        self,
        sandbox_id: str,
        expected: Collection[SandboxState],
        new: SandboxState,
        *,
        error: str | None = None,
        exit_cause: ExitCause | None = None,
    ) -> Sandbox:
        now = self._clock.now()
        values: dict[str, object] = {"state": new.value, "error": error, "updated_at": now}
        if new is SandboxState.RUNNING:
            values |= {"stopped_at": None, "exit_cause": None}
        elif new is SandboxState.STOPPED:
            values["stopped_at"] = now
        if exit_cause is not None:
            values["exit_cause"] = rows.plain(exit_cause)
        statement = (
            update(sandboxes)
            .where(sandboxes.c.id == sandbox_id, sandboxes.c.state.in_(sorted(expected)))
            .values(**values)
            .returning(*rows.SANDBOX)
        )

        def work(connection: Connection) -> Sandbox:
            row = connection.execute(statement).first()
            if row is None:
                raise _why_unchanged(connection, sandbox_id, expected)
            return rows.sandbox_of(row)

        return await self._database.write(work)

    async def update(
        self,
        sandbox_id: str,
        changes: SandboxChanges,
        *,
        expected: Collection[SandboxState] = CHANGEABLE,
    ) -> Sandbox:
        def work(connection: Connection) -> Sandbox:
            # Locked from the read on: SQLite's writers are alone anyway, PostgreSQL's wait here for each other.
            row = connection.execute(GET.with_for_update(), {"sandbox_id": sandbox_id}).first()
            current = None if row is None else rows.sandbox_of(row)
            if current is None or current.state not in expected:
                raise _why_unchanged(connection, sandbox_id, expected)
            spec = changes.apply(current.spec)
            refusals.check_storable(spec)
            more = egress_of(spec) - egress_of(current.spec)
            self._quotas.enter(connection, current.owner, Amounts(egress_bytes_per_s=more))
            return _write(connection, current, spec, changes.lifetime)

        def _write(connection: Connection, current: Sandbox, spec: SandboxSpec, lifetime: Lifetime | None) -> Sandbox:
            changed = replace(
                current, spec=spec, expires_at=current.expires_at if lifetime is None else lifetime.expires_at
            )
            row = {**rows.sandbox_row(changed), "updated_at": self._clock.now()}
            try:
                with connection.begin_nested():
                    connection.execute(update(sandboxes).where(sandboxes.c.id == sandbox_id).values(**row))
            except IntegrityError as error:
                raise _why_refused(connection, changed, self._host) from error
            return changed

        return await self._database.write(work)

    async def set_origin(self, sandbox_id: str, origin: str | None, *, expected: str | None = None) -> Sandbox:
        statement = (
            update(sandboxes)
            .where(sandboxes.c.id == sandbox_id, sandboxes.c.origin.is_not_distinct_from(expected))
            .values(origin=origin, updated_at=self._clock.now())
            .returning(*rows.SANDBOX)
        )

        def work(connection: Connection) -> Sandbox:
            row = connection.execute(statement).first()
            if row is not None:
                return rows.sandbox_of(row)
            current = connection.execute(GET, {"sandbox_id": sandbox_id}).first()
            if current is None:
                raise refusals.not_found("sandbox", sandbox_id)
            raise refusals.other_origin(sandbox_id, current.origin, expected)

        return await self._database.write(work)

    async def origins(self) -> Mapping[str, int]:
        statement = select(sandboxes.c.origin, func.count()).where(sandboxes.c.origin.is_not(None))
        grouped = statement.group_by(sandboxes.c.origin)
        found = await self._database.read(lambda connection: connection.execute(grouped).all())
        return {row[0]: row[1] for row in found}

    async def delete(self, sandbox_id: str, expected: Collection[SandboxState]) -> None:
        statement = delete(sandboxes).where(sandboxes.c.id == sandbox_id, sandboxes.c.state.in_(sorted(expected)))

        def work(connection: Connection) -> None:
            if connection.execute(statement).rowcount == 0:
                raise _why_unchanged(connection, sandbox_id, expected)

        await self._database.write(work)

    def _has_label(self, key: str, value: str) -> ColumnElement[bool]:
        # A path such as '$.labels.key' would be wrong for keys with dots, quotes or digits; this compares whole keys.
        if self._database.is_shared:
            pairs = func.json_each_text(sandboxes.c.spec["labels"])
        else:
            pairs = func.json_each(sandboxes.c.spec, "$.labels")
        label = pairs.table_valued("key", "value")
        return exists(select(1).select_from(label).where(label.c.key == key, label.c.value == value))


def _why_refused(connection: Connection, sandbox: Sandbox, host: str) -> HearthError:
    existing = connection.execute(OF_OWNER, {"owner": sandbox.owner, "name": sandbox.spec.name}).first()
    if existing is not None:
        if connection.execute(GET.where(HERE), {"sandbox_id": existing.id, "host": host}).first() is None:
            return refusals.taken("sandbox", f"{sandbox.spec.name} (on another host)", field="name")
        return SandboxExists(rows.sandbox_of(existing))
    if connection.execute(select(users.c.id).where(users.c.id == sandbox.owner)).first() is None:
        return refusals.not_found("user", sandbox.owner)
    return refusals.taken("sandbox", sandbox.id)


def _why_unchanged(connection: Connection, sandbox_id: str, expected: Collection[SandboxState]) -> HearthError:
    row: Any = connection.execute(GET, {"sandbox_id": sandbox_id}).first()
    if row is None:
        return refusals.not_found("sandbox", sandbox_id)
    return refusals.wrong_state("sandbox", sandbox_id, SandboxState(row.state), expected)
