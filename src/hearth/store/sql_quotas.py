"""Quotas in SQL: judged in the transaction of whoever writes, with the owner's row locked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, func, select, update

from hearth.quota import Amounts, Quotas, check_quotas, mebibytes, total
from hearth.store import refusals, rows
from hearth.store.database import Database
from hearth.store.quota_store import amounts_of_spec
from hearth.store.schema import sandboxes, snapshots, users, volumes

OF_SANDBOXES = frozenset({"sandboxes", "cpus", "memory_mib", "disk_mib", "egress_bytes_per_s"})
OF_SNAPSHOTS = frozenset({"snapshots", "snapshot_mib"})
OF_VOLUMES = frozenset({"volumes", "volume_mib"})


class SqlQuotas:
    """``QuotaStore`` over a database, and the door for the other stores."""

    def __init__(self, database: Database, defaults: Quotas) -> None:
        self._database = database
        self.defaults = defaults

    async def limits(self, owner: str) -> Quotas:
        return await self._database.read(lambda connection: self._known_limits(connection, owner))

    async def set(self, owner: str, limits: Mapping[str, int | None], *, unset: frozenset[str]) -> Quotas:
        def work(connection: Connection) -> Quotas:
            row = _row(connection, owner, lock=True)
            if row is None:
                raise refusals.not_found("user", owner)
            kept = {name: limit for name, limit in ((row.quotas or {}) | dict(limits)).items() if name not in unset}
            connection.execute(update(users).where(users.c.id == owner).values(quotas=kept))
            return self.defaults.but(kept)

        return await self._database.write(work)

    async def used(self, owner: str) -> Amounts:
        everything = OF_SANDBOXES | OF_SNAPSHOTS | OF_VOLUMES
        return await self._database.read(lambda connection: _used(connection, owner, everything))

    async def check(self, owner: str, added: Amounts) -> None:
        def work(connection: Connection) -> None:
            limits = self._known_limits(connection, owner)
            check_quotas(limits, _used(connection, owner, limits.bounded), added)

        await self._database.read(work)

    def enter(self, connection: Connection, owner: str, added: Amounts) -> None:
        """Let more in, in the transaction that is about to write it; others of the same owner wait until that ends.

        Raises:
            QuotaExceeded: it would be too much.
        """
        row = _row(connection, owner, lock=True)
        if row is None:
            return  # who writes the row tells that there is no such owner
        limits = self.defaults.but(row.quotas or {})
        asked = frozenset(name for name in limits.bounded if getattr(added, name) > 0)
        if asked:
            check_quotas(limits, _used(connection, owner, asked), added)

    def _known_limits(self, connection: Connection, owner: str) -> Quotas:
        row = _row(connection, owner, lock=False)
        if row is None:
            raise refusals.not_found("user", owner)
        return self.defaults.but(row.quotas or {})


def _row(connection: Connection, owner: str, *, lock: bool) -> Any:
    statement = select(users.c.id, users.c.quotas).where(users.c.id == owner)
    return connection.execute(statement.with_for_update() if lock else statement).first()


def _used(connection: Connection, owner: str, names: frozenset[str]) -> Amounts:
    """Count what is asked for and no more: a user may have thousands of sandboxes."""
    counted = []
    if names & OF_SANDBOXES:
        found = connection.execute(
            select(sandboxes.c.id, sandboxes.c.spec, sandboxes.c.disk_mib).where(sandboxes.c.owner == owner)
        )
        for row in found:
            counted.append(amounts_of_spec(rows.spec_of(row.spec, row.id), row.disk_mib or 0))
    if names & OF_SNAPSHOTS:
        found = connection.execute(select(snapshots.c.size_bytes).where(snapshots.c.owner == owner))
        sizes = [max(1, mebibytes(size)) for size in found.scalars()]
        counted.append(Amounts(snapshots=len(sizes), snapshot_mib=sum(sizes)))
    if names & OF_VOLUMES:
        statement = select(func.count(), func.coalesce(func.sum(volumes.c.size_mib), 0)).where(volumes.c.owner == owner)
        count, size_mib = connection.execute(statement).one()
        counted.append(Amounts(volumes=count, volume_mib=int(size_mib)))
    return total(counted)
