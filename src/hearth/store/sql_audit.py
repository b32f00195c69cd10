"""The audit log in SQL."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import delete, insert, select

from hearth.store.audit_store import EVERYTHING, AuditFilter
from hearth.store.base import FIRST_PAGE, Page, PageRequest
from hearth.store.database import Database
from hearth.store.paging import cut_page, read_request
from hearth.store.schema import audit
from hearth.store.sql_paging import page_of
from hearth.tenancy import AuditEntry

FIELDS = tuple(field.name for field in dataclasses.fields(AuditEntry))


class SqlAudit:
    """``AuditStore`` over a database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def append(self, entries: Sequence[AuditEntry]) -> None:
        rows = [{name: getattr(entry, name) for name in FIELDS} for entry in entries]
        await self._database.write(lambda connection: connection.execute(insert(audit), rows))

    async def list(self, wanted: AuditFilter = EVERYTHING, page: PageRequest = FIRST_PAGE) -> Page[AuditEntry]:
        limit, after = read_request(page)
        statement = select(audit)
        if wanted.user_id is not None:
            statement = statement.where(audit.c.user_id == wanted.user_id)
        if wanted.action is not None:
            statement = statement.where(audit.c.action == wanted.action)
        if wanted.since is not None:
            statement = statement.where(audit.c.created_at >= wanted.since)
        statement = page_of(statement, audit, limit, after)
        found = await self._database.read(lambda connection: connection.execute(statement).all())
        cut = cut_page(found, limit, lambda row: (row.created_at, row.id))
        return Page(items=[_entry_of(row) for row in cut.items], next_cursor=cut.next_cursor)

    async def expire(self, before: datetime) -> int:
        statement = delete(audit).where(audit.c.created_at < before)
        return await self._database.write(lambda connection: connection.execute(statement).rowcount)


def _entry_of(row: Any) -> AuditEntry:
    return AuditEntry(**{name: getattr(row, name) for name in FIELDS})
