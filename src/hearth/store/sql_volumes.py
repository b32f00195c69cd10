"""Volumes and their placements in SQL."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import Connection, Select, bindparam, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from hearth.errors import HearthError
from hearth.model import NamedVolume, VolumePlacement, VolumeState
from hearth.quota import Amounts
from hearth.store import refusals, rows
from hearth.store.base import FIRST_PAGE, Page, PageRequest
from hearth.store.database import Database
from hearth.store.host_store import ALONE
from hearth.store.paging import cut_page, read_request
from hearth.store.quota_store import amounts_of_volume
from hearth.store.schema import sandboxes, users, volume_placements, volumes
from hearth.store.sql_hosts import missing
from hearth.store.sql_paging import page_of
from hearth.store.sql_quotas import SqlQuotas

GET = select(volumes).where(volumes.c.id == bindparam("volume_id"))
IN_SANDBOX = (
    select(volume_placements)
    .where(volume_placements.c.sandbox_id == bindparam("sandbox_id"))
    .order_by(volume_placements.c.slot)
)
OF_VOLUME = (
    select(volume_placements)
    .where(volume_placements.c.volume_id == bindparam("volume_id"))
    .order_by(volume_placements.c.attached_at, volume_placements.c.sandbox_id)
)


class SqlVolumes:
    """``VolumeStore`` over a database."""

    def __init__(self, database: Database, quotas: SqlQuotas, host: str = ALONE) -> None:
        self._database = database
        self._quotas = quotas
        self._host = host

    async def create(self, volume: NamedVolume) -> None:
        row = {**rows.volume_row(volume), "host": self._host}

        def work(connection: Connection) -> None:
            self._quotas.enter(connection, volume.owner, amounts_of_volume(volume))
            try:
                with connection.begin_nested():
                    connection.execute(insert(volumes), row)
            except IntegrityError as error:
                raise _why_refused(connection, volume) from error

        await self._database.write(work)

    async def get(self, volume_id: str) -> NamedVolume:
        row = await self._database.read(lambda connection: _row(connection, volume_id))
        if row is None or row.host != self._host:
            raise refusals.not_found("volume", volume_id)
        return rows.volume_of(row)

    async def resolve(self, owner: str | None, reference: str) -> NamedVolume:
        mine = _of(owner, self._host)

        def work(connection: Connection) -> NamedVolume:
            row = connection.execute(mine.where(volumes.c.id == reference)).first()
            if row is not None:
                return rows.volume_of(row)
            named = connection.execute(mine.where(volumes.c.name == reference).limit(2)).all()
            if not named:
                raise missing(connection, volumes, "volume", owner, reference)
            if len(named) > 1:
                raise refusals.ambiguous("volume", reference)
            return rows.volume_of(named[0])

        return await self._database.read(work)

    async def list(
        self, owner: str | None, *, states: Collection[VolumeState] = (), page: PageRequest = FIRST_PAGE
    ) -> Page[NamedVolume]:
        limit, after = read_request(page)
        statement = _of(owner, self._host)
        if states:
            statement = statement.where(volumes.c.state.in_(sorted(states)))
        statement = page_of(statement, volumes, limit, after)
        found = await self._database.read(lambda connection: connection.execute(statement).all())
        cut = cut_page(found, limit, lambda row: (row.created_at, row.id))
        return Page(items=[rows.volume_of(row) for row in cut.items], next_cursor=cut.next_cursor)

    async def transition(
        self, volume_id: str, expected: Collection[VolumeState], new: VolumeState, *, size_mib: int | None = None
    ) -> NamedVolume:
        size = {} if size_mib is None else {"size_mib": size_mib}
        statement = (
            update(volumes)
            .where(volumes.c.id == volume_id, volumes.c.state.in_(sorted(expected)))
            .values(state=new.value, **size)
            .returning(*volumes.c)
        )

        def work(connection: Connection) -> NamedVolume:
            before = _row(connection, volume_id)
            if before is not None and size_mib is not None:
                self._quotas.enter(connection, before.owner, Amounts(volume_mib=size_mib - before.size_mib))
            row = connection.execute(statement).first()
            if row is None:
                raise _why_unchanged(connection, volume_id, expected)
            return rows.volume_of(row)

        return await self._database.write(work)

    async def delete(self, volume_id: str, expected: Collection[VolumeState]) -> None:
        statement = delete(volumes).where(volumes.c.id == volume_id, volumes.c.state.in_(sorted(expected)))

        def work(connection: Connection) -> None:
            try:
                with connection.begin_nested():
                    deleted = connection.execute(statement).rowcount
            except IntegrityError as error:
                placed = connection.execute(OF_VOLUME, {"volume_id": volume_id}).all()
                raise refusals.placed(volume_id, [row.sandbox_id for row in placed]) from error
            if deleted == 0:
                raise _why_unchanged(connection, volume_id, expected)

        await self._database.write(work)

    async def place(self, placement: VolumePlacement) -> None:
        row = rows.placement_row(placement)

        def work(connection: Connection) -> None:
            try:
                with connection.begin_nested():
                    connection.execute(insert(volume_placements), row)
            except IntegrityError as error:
                raise _why_not_placed(connection, placement) from error

        await self._database.write(work)

    async def displace(self, sandbox_id: str, volume_id: str) -> None:
        mine = (volume_placements.c.sandbox_id == sandbox_id, volume_placements.c.volume_id == volume_id)
        await self._database.write(lambda connection: connection.execute(delete(volume_placements).where(*mine)))

    async def in_sandbox(self, sandbox_id: str) -> Sequence[VolumePlacement]:
        parameters = {"sandbox_id": sandbox_id}
        found = await self._database.read(lambda connection: connection.execute(IN_SANDBOX, parameters).all())
        return [rows.placement_of(row) for row in found]

    async def sandboxes_of(self, volume_id: str) -> Sequence[VolumePlacement]:
        parameters = {"volume_id": volume_id}
        found = await self._database.read(lambda connection: connection.execute(OF_VOLUME, parameters).all())
        return [rows.placement_of(row) for row in found]


def _of(owner: str | None, host: str) -> Select[Any]:
    statement = select(volumes).where(volumes.c.host == host)
    return statement if owner is None else statement.where(volumes.c.owner == owner)


def _row(connection: Connection, volume_id: str) -> Any:
    return connection.execute(GET, {"volume_id": volume_id}).first()


def _why_refused(connection: Connection, volume: NamedVolume) -> HearthError:
    if connection.execute(select(users.c.id).where(users.c.id == volume.owner)).first() is None:
        return refusals.not_found("user", volume.owner)
    return refusals.taken("volume", volume.name, field="name")


def _why_not_placed(connection: Connection, placement: VolumePlacement) -> HearthError:
    if _row(connection, placement.volume_id) is None:
        return refusals.not_found("volume", placement.volume_id)
    if connection.execute(select(sandboxes.c.id).where(sandboxes.c.id == placement.sandbox_id)).first() is None:
        return refusals.not_found("sandbox", placement.sandbox_id)
    return refusals.not_placeable(placement)


def _why_unchanged(connection: Connection, volume_id: str, expected: Collection[VolumeState]) -> HearthError:
    row = _row(connection, volume_id)
    if row is None:
        return refusals.not_found("volume", volume_id)
    return refusals.wrong_state("volume", volume_id, VolumeState(row.state), expected)
