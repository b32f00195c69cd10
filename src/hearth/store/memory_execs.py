"""Commands that were run, in memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime

from hearth.execs import Exec, ExecState
from hearth.store import refusals
from hearth.store.base import FIRST_PAGE, Page, PageRequest
from hearth.store.exec_store import LogUsage
from hearth.store.memory_tables import Tables, page_of


class MemoryExecs:
    """``ExecStore`` in memory."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    async def save(self, execs: Sequence[Exec]) -> None:
        self._tables.execs.update({each.id: each for each in execs if each.sandbox_id in self._tables.sandboxes})

    async def get(self, owner: str | None, exec_id: str) -> Exec:
        found = self._tables.execs.get(exec_id)
        if found is None or found not in self._there() or owner not in (None, found.owner):
            raise refusals.not_found("command", exec_id)
        return found

    async def list(
        self,
        owner: str | None,
        *,
        sandbox_id: str,
        states: Collection[ExecState] = (),
        page: PageRequest = FIRST_PAGE,
    ) -> Page[Exec]:
        found = [
            each
            for each in self._there()
            if each.sandbox_id == sandbox_id and owner in (None, each.owner) and (not states or each.state in states)
        ]
        return page_of(found, page, lambda each: (each.created_at, each.id))

    async def running(self) -> Sequence[Exec]:
        return sorted(
            (each for each in self._there() if each.state is ExecState.RUNNING), key=lambda each: each.created_at
        )

    async def known(self) -> Mapping[str, frozenset[str]]:
        there = self._there()
        return {
            sandbox_id: frozenset(each.id for each in there if each.sandbox_id == sandbox_id)
            for sandbox_id in {each.sandbox_id for each in there}
        }

    async def usage(self) -> LogUsage:
        by_sandbox, by_owner, ended = Counter[str](), Counter[str](), Counter[str]()
        for each in self._there():
            by_sandbox[each.sandbox_id] += each.log_bytes
            by_owner[each.owner] += each.log_bytes
            if each.ended_at is not None:
                ended[each.sandbox_id] += 1
        return LogUsage(by_sandbox=by_sandbox, by_owner=by_owner, ended=ended)

    async def ended(
        self,
        *,
        sandbox_id: str | None = None,
        owner: str | None = None,
        before: datetime | None = None,
        limit: int = 100,
    ) -> Sequence[Exec]:
        found = [
            (each.ended_at, each.id, each)
            for each in self._there()
            if each.ended_at is not None
            and sandbox_id in (None, each.sandbox_id)
            and owner in (None, each.owner)
            and (before is None or each.ended_at < before)
        ]
        return [each for _, _, each in sorted(found, key=lambda row: row[:2])[:limit]]

    async def delete(self, exec_ids: Collection[str]) -> None:
        for exec_id in exec_ids:
            self._tables.execs.pop(exec_id, None)

    def _there(self) -> Sequence[Exec]:
        """Leave out those of sandboxes that are gone, as a database does by itself."""
        return [each for each in self._tables.execs.values() if each.sandbox_id in self._tables.sandboxes]
