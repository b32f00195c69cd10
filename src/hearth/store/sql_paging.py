"""Keyset pages in SQL: the rows after a position in the order (created_at, id)."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Select, Table, tuple_

from hearth.store.paging import Position


def page_of(statement: Select[Any], table: Table, limit: int, after: Position | None) -> Select[Any]:
    """Order ``statement`` and cut it to ``limit`` rows and one more, which tells that there is a next page."""
    order = (table.c.created_at, table.c.id)
    if after is not None:
        statement = statement.where(tuple_(*order) > after)
    return statement.order_by(*order).limit(limit + 1)
