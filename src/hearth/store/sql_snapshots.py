"""Named checkpoints in SQL."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import Connection, Select, bindparam, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from hearth.errors import HearthError
from hearth.model import Snapshot, SnapshotState
from hearth.quota import Amounts, mebibytes
from hearth.store import refusals, rows
from hearth.store.base import FIRST_PAGE, Page, PageRequest
from hearth.store.database import Database
from hearth.store.host_store import ALONE
from hearth.store.paging import cut_page, read_request
from hearth.store.quota_store import amounts_of_snapshot
from hearth.store.schema import snapshots, users
from hearth.store.sql_hosts import missing
from hearth.store.sql_paging import page_of
from hearth.store.sql_quotas import SqlQuotas

GET = select(snapshots).where(snapshots.c.id == bindparam("snapshot_id"))
CHILDREN = (
    select(snapshots)
    .where(snapshots.c.parent == bindparam("snapshot_id"))
    .order_by(snapshots.c.created_at, snapshots.c.id)
)
IS_NAMED = snapshots.c.state != SnapshotState.DELETING.value
"""Only these hold their names."""


class SqlSnapshots:
    """``SnapshotStore`` over a database."""

    def __init__(self, database: Database, quotas: SqlQuotas, host: str = ALONE) -> None:
        self._database = database
        self._quotas = quotas
        self._host = host

    async def create(self, snapshot: Snapshot) -> None:
        row = {**rows.snapshot_row(snapshot), "host": self._host}

        def work(connection: Connection) -> None:
            self._quotas.enter(connection, snapshot.owner, amounts_of_snapshot(snapshot))
            try:
                with connection.begin_nested():
                    connection.execute(insert(snapshots), row)
            except IntegrityError as error:
                raise _why_refused(connection, snapshot) from error

        await self._database.write(work)

    async def get(self, snapshot_id: str) -> Snapshot:
        row = await self._database.read(lambda connection: _row(connection, snapshot_id))
        if row is None or row.host != self._host:
            raise refusals.not_found("snapshot", snapshot_id)
        return rows.snapshot_of(row)

    async def resolve(self, owner: str | None, reference: str) -> Snapshot:
        mine = _of(owner, self._host)

        def work(connection: Connection) -> Snapshot:
            row = connection.execute(mine.where(snapshots.c.id == reference)).first()
            if row is not None:
                return rows.snapshot_of(row)
            named = connection.execute(mine.where(snapshots.c.name == reference, IS_NAMED).limit(2)).all()
            if not named:
                raise missing(connection, snapshots, "snapshot", owner, reference)
            if len(named) > 1:
                raise refusals.ambiguous("snapshot", reference)
            return rows.snapshot_of(named[0])

        return await self._database.read(work)

    async def list(
        self,
        owner: str | None,
        *,
        sandbox_id: str | None = None,
        states: Collection[SnapshotState] = (),
        page: PageRequest = FIRST_PAGE,
    ) -> Page[Snapshot]:
        limit, after = read_request(page)
        statement = _of(owner, self._host)
        if sandbox_id is not None:
            statement = statement.where(snapshots.c.sandbox_id == sandbox_id)
        if states:
            statement = statement.where(snapshots.c.state.in_(sorted(states)))
        statement = page_of(statement, snapshots, limit, after)
        found = await self._database.read(lambda connection: connection.execute(statement).all())
        cut = cut_page(found, limit, lambda row: (row.created_at, row.id))
        return Page(items=[rows.snapshot_of(row) for row in cut.items], next_cursor=cut.next_cursor)

    async def children_of(self, snapshot_id: str) -> Sequence[Snapshot]:
        parameters = {"snapshot_id": snapshot_id}
        found = await self._database.read(lambda connection: connection.execute(CHILDREN, parameters).all())
        return [rows.snapshot_of(row) for row in found]

    async def transition(
        self,
        snapshot_id: str,
        expected: Collection[SnapshotState],
        new: SnapshotState,
        *,
        size_bytes: int | None = None,
    ) -> Snapshot:
        size = {} if size_bytes is None else {"size_bytes": size_bytes}
        statement = (
            update(snapshots)
            .where(snapshots.c.id == snapshot_id, snapshots.c.state.in_(sorted(expected)))
            .values(state=new.value, **size)
            .returning(*snapshots.c)
        )

        def work(connection: Connection) -> Snapshot:
            before = _row(connection, snapshot_id)
            if before is not None and size_bytes is not None:
                more = max(1, mebibytes(size_bytes)) - max(1, mebibytes(before.size_bytes))
                self._quotas.enter(connection, before.owner, Amounts(snapshot_mib=more))
            row = connection.execute(statement).first()
            if row is None:
                raise _why_unchanged(connection, snapshot_id, expected)
            return rows.snapshot_of(row)

        try:
            return await self._database.write(work)
        except IntegrityError as error:
            raise refusals.taken("snapshot", f"of the name of {snapshot_id}") from error

    async def delete(self, snapshot_id: str, expected: Collection[SnapshotState]) -> None:
        statement = delete(snapshots).where(snapshots.c.id == snapshot_id, snapshots.c.state.in_(sorted(expected)))

        def work(connection: Connection) -> None:
            try:
                with connection.begin_nested():
                    deleted = connection.execute(statement).rowcount
            except IntegrityError as error:
                children = connection.execute(CHILDREN, {"snapshot_id": snapshot_id}).all()
                raise refusals.needed(snapshot_id, [row.name for row in children]) from error
            if deleted == 0:
                raise _why_unchanged(connection, snapshot_id, expected)

        await self._database.write(work)


def _of(owner: str | None, host: str) -> Select[Any]:
    statement = select(snapshots).where(snapshots.c.host == host)
    return statement if owner is None else statement.where(snapshots.c.owner == owner)


def _row(connection: Connection, snapshot_id: str) -> Any:
    return connection.execute(GET, {"snapshot_id": snapshot_id}).first()


def _why_refused(connection: Connection, snapshot: Snapshot) -> HearthError:
    named = select(snapshots).where(snapshots.c.owner == snapshot.owner, snapshots.c.name == snapshot.name, IS_NAMED)
    if connection.execute(named).first() is not None or _row(connection, snapshot.id) is not None:
        return refusals.taken("snapshot", snapshot.name)
    if connection.execute(select(users.c.id).where(users.c.id == snapshot.owner)).first() is None:
        return refusals.not_found("user", snapshot.owner)
    return refusals.not_found("snapshot", snapshot.parent or "")


def _why_unchanged(connection: Connection, snapshot_id: str, expected: Collection[SnapshotState]) -> HearthError:
    row = _row(connection, snapshot_id)
    if row is None:
        return refusals.not_found("snapshot", snapshot_id)
    return refusals.wrong_state("snapshot", snapshot_id, SnapshotState(row.state), expected)
