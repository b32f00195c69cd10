"""Lists that are read whole, page by page."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from hearth.store.base import MAX_PAGE, Page, PageRequest

T = TypeVar("T")


async def every(fetch: Callable[[PageRequest], Awaitable[Page[T]]]) -> list[T]:
    """Collect all pages of a list."""
    items: list[T] = []
    cursor: str | None = None
    while True:
        page = await fetch(PageRequest(limit=MAX_PAGE, cursor=cursor))
        items += page.items
        cursor = page.next_cursor
        if cursor is None:
            return items
