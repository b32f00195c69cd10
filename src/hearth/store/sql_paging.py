"""Keyset pages in SQL: the rows after a position in the order of a time and an id."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Column, Select, Table, tuple_

from hearth.store.paging import Position


def page_of(statement: Select[Any], table: Table, limit: int, after: Position | None) -> Select[Any]:
    """Order ``statement`` and cut it to ``limit`` rows and one more, which tells that there is a next page."""
    return page_by(statement, (table.c.created_at, table.c.id), limit, after)


def page_by(
    statement: Select[Any], order: tuple[Column[Any], Column[Any]], limit: int, after: Position | None
) -> Select[Any]:
    """Do the same in another ``order``: a time and an id."""
    if after is not None:
        statement = statement.where(tuple_(*order) > after)
    return statement.order_by(*order).limit(limit + 1)
