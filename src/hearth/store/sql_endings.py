"""What is remembered of destroyed sandboxes, in SQL."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Select, delete, exists, insert, select

from hearth.host.clock import Clock
from hearth.model import Ending
from hearth.store import refusals, rows
from hearth.store.base import ENDINGS_KEPT_FOR, ENDINGS_KEPT_PER_OWNER, FIRST_PAGE, Page, PageRequest
from hearth.store.database import Database
from hearth.store.paging import cut_page, read_request
from hearth.store.schema import endings, users
from hearth.store.sql_paging import page_by

ORDER = (endings.c.ended_at, endings.c.sandbox_id)


class SqlEndings:
    """``EndingStore`` over a database."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def record(self, ending: Ending) -> None:
        row = rows.ending_row(ending)
        known = exists(select(1).select_from(endings).where(endings.c.sandbox_id == ending.sandbox_id))
        surplus = (
            select(endings.c.sandbox_id)
            .where(endings.c.owner == ending.owner)
            .order_by(*(column.desc() for column in ORDER))
            .offset(ENDINGS_KEPT_PER_OWNER)
        )

        def work(connection: Connection) -> None:
            if connection.execute(select(users.c.id).where(users.c.id == ending.owner)).first() is None:
                raise refusals.not_found("user", ending.owner)
            if not connection.scalar(select(known)):
                connection.execute(insert(endings), row)
            connection.execute(delete(endings).where(endings.c.ended_at <= self._clock.now() - ENDINGS_KEPT_FOR))
            connection.execute(delete(endings).where(endings.c.sandbox_id.in_(surplus)))

        await self._database.write(work)

    async def find(self, owner: str | None, reference: str) -> Ending:
        mine = self._kept(owner)

        def work(connection: Connection) -> Ending:
            row = connection.execute(mine.where(endings.c.sandbox_id == reference)).first()
            if row is None:
                latest = mine.where(endings.c.name == reference).order_by(*(column.desc() for column in ORDER))
                row = connection.execute(latest.limit(1)).first()
            if row is None:
                raise refusals.not_found("destroyed sandbox", reference)
            return rows.ending_of(row)

        return await self._database.read(work)

    async def list(self, owner: str | None, *, page: PageRequest = FIRST_PAGE) -> Page[Ending]:
        limit, after = read_request(page)
        statement = page_by(self._kept(owner), ORDER, limit, after)
        found = await self._database.read(lambda connection: connection.execute(statement).all())
        cut = cut_page(found, limit, lambda row: (row.ended_at, row.sandbox_id))
        return Page(items=[rows.ending_of(row) for row in cut.items], next_cursor=cut.next_cursor)

    def _kept(self, owner: str | None) -> Select[Any]:
        """Leave out what is too old, though nothing may have been recorded since to sweep it away."""
        statement = select(endings).where(endings.c.ended_at > self._clock.now() - ENDINGS_KEPT_FOR)
        return statement if owner is None else statement.where(endings.c.owner == owner)
