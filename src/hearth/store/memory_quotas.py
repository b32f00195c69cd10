"""Quotas in memory."""

from __future__ import annotations

from collections.abc import Mapping

from hearth.quota import Amounts, Quotas, check_quotas, total
from hearth.store import refusals
from hearth.store.memory_tables import Tables
from hearth.store.quota_store import amounts_of_sandbox, amounts_of_snapshot, amounts_of_volume


class MemoryQuotas:
    """``QuotaStore`` in memory, and the door for the other stores."""

    def __init__(self, tables: Tables, defaults: Quotas) -> None:
        self._tables = tables
        self.defaults = defaults

    async def limits(self, owner: str) -> Quotas:
        if owner not in self._tables.users:
            raise refusals.not_found("user", owner)
        return self.defaults.but(self._tables.quotas.get(owner, {}))

    async def set(self, owner: str, limits: Mapping[str, int | None], *, unset: frozenset[str]) -> Quotas:
        if owner not in self._tables.users:
            raise refusals.not_found("user", owner)
        known = {**self._tables.quotas.get(owner, {}), **limits}
        self._tables.quotas[owner] = {name: limit for name, limit in known.items() if name not in unset}
        return await self.limits(owner)

    async def used(self, owner: str) -> Amounts:
        return self._used(owner)

    async def check(self, owner: str, added: Amounts) -> None:
        check_quotas(await self.limits(owner), self._used(owner), added)

    def enter(self, owner: str, added: Amounts) -> None:
        """Let more in before it is written. Raises QuotaExceeded."""
        check_quotas(self.defaults.but(self._tables.quotas.get(owner, {})), self._used(owner), added)

    def _used(self, owner: str) -> Amounts:
        tables = self._tables
        return total(
            [
                *(amounts_of_sandbox(each) for each in tables.sandboxes.values() if each.owner == owner),
                *(amounts_of_snapshot(each) for each in tables.snapshots.values() if each.owner == owner),
                *(amounts_of_volume(each) for each in tables.volumes.values() if each.owner == owner),
            ]
        )
