"""Hosts in SQL, and what the other stores ask about them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Table, delete, insert, or_, select, update

from hearth.errors import NotFound
from hearth.host.clock import Clock
from hearth.store import refusals
from hearth.store.database import Database
from hearth.store.host_store import Host, is_taken, spoken_for
from hearth.store.schema import execs, hosts, jobs, sandboxes, snapshots, volumes

BOUND = (sandboxes, snapshots, volumes, execs, jobs)
"""Tables of what is on one host."""


class SqlHosts:
    """``HostStore`` over a database."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def enter(self, host: Host, *, is_shared: bool = True) -> None:
        def work(connection: Connection) -> None:
            now = self._clock.now()
            found = connection.execute(select(hosts).where(hosts.c.id == host.id).with_for_update()).first()
            if is_shared and found is not None and is_taken(known := _host_of(found), host, now):
                raise spoken_for(known)
            connection.execute(delete(hosts).where(hosts.c.id == host.id))
            row = {"id": host.id, "name": host.name, "tag": host.tag, "run": host.run, "seen_at": now}
            connection.execute(insert(hosts), row)

        await self._database.write(work)

    async def beat(self, host: Host) -> bool:
        mine = update(hosts).where(hosts.c.id == host.id, hosts.c.run == host.run)
        statement = mine.values(seen_at=self._clock.now())
        return await self._database.write(lambda connection: connection.execute(statement).rowcount) == 1

    async def leave(self, host: Host) -> None:
        mine = update(hosts).where(hosts.c.id == host.id, hosts.c.run == host.run)
        await self._database.write(lambda connection: connection.execute(mine.values(seen_at=None)))

    async def list(self) -> Sequence[Host]:
        statement = select(hosts).order_by(hosts.c.name, hosts.c.id)
        return [_host_of(row) for row in await self._database.read(lambda each: each.execute(statement).all())]


async def adopt(database: Database, host: str) -> None:
    """Take what is nobody's; of a database that is not shared everything is this host's."""

    def work(connection: Connection) -> None:
        for table in BOUND:
            foreign = table.c.host.is_(None) if database.is_shared else _foreign(table, host)
            if connection.execute(select(table.c.id).where(foreign).limit(1)).first() is not None:
                connection.execute(update(table).where(foreign).values(host=host))

    await database.write(work)


def missing(connection: Connection, table: Table, noun: str, owner: str | None, reference: str) -> NotFound:
    """Say that something is not here, and where it is if it is the owner's and on another host."""
    named = or_(table.c.id == reference, table.c.name == reference)
    statement = select(hosts.c.name).join(table, table.c.host == hosts.c.id).where(named)
    if owner is not None:
        statement = statement.where(table.c.owner == owner)
    where = connection.scalar(statement.limit(1))
    return refusals.not_found(noun, reference) if where is None else refusals.elsewhere(noun, reference, where)


def _foreign(table: Table, host: str) -> Any:
    foreign = or_(table.c.host.is_(None), table.c.host != host)
    return foreign if table is not jobs else table.c.host.is_(None) | ~table.c.host.in_([host, "*"])


def _host_of(row: Any) -> Host:
    return Host(id=row.id, name=row.name, tag=row.tag, run=row.run, seen_at=row.seen_at)
