"""The audit log in memory."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from hearth.store.audit_store import EVERYTHING, AuditFilter
from hearth.store.base import FIRST_PAGE, Page, PageRequest
from hearth.store.memory_tables import Tables, page_of
from hearth.tenancy import AuditEntry


class MemoryAudit:
    """``AuditStore`` in memory."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    async def append(self, entries: Sequence[AuditEntry]) -> None:
        self._tables.audit.extend(entries)

    async def list(self, wanted: AuditFilter = EVERYTHING, page: PageRequest = FIRST_PAGE) -> Page[AuditEntry]:
        fitting = (
            entry
            for entry in self._tables.audit
            if wanted.user_id in (None, entry.user_id)
            and wanted.action in (None, entry.action)
            and (wanted.since is None or entry.created_at >= wanted.since)
        )
        return page_of(fitting, page, lambda entry: (entry.created_at, entry.id))

    async def expire(self, before: datetime) -> int:
        kept = [entry for entry in self._tables.audit if entry.created_at >= before]
        dropped = len(self._tables.audit) - len(kept)
        self._tables.audit[:] = kept
        return dropped
