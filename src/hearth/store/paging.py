"""Opaque cursors: the place of the last row seen in the order (created_at, id), which no later insert can move."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TypeVar

import msgspec

from hearth.errors import InvalidInput
from hearth.model import check_range
from hearth.store.base import MAX_PAGE, Page, PageRequest

T = TypeVar("T")
Position = tuple[datetime, str]
"""Where a row stands: when it was created, and its id for those created in the same microsecond."""


def encode_cursor(position: Position) -> str:
    """Give the cursor of a row; URL-safe text without padding."""
    return base64.urlsafe_b64encode(msgspec.json.encode(position)).decode("ascii").rstrip("=")


def decode_cursor(cursor: str) -> Position:
    """Give the position a cursor stands for.

    Raises:
        InvalidInput: it is not one of ours; the field is ``cursor``.
    """
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        created_at, row_id = msgspec.json.decode(base64.b64decode(padded, altchars=b"-_", validate=True), type=Position)
        if created_at.tzinfo is None:
            raise ValueError("a time without a zone")
    except (ValueError, binascii.Error, msgspec.DecodeError) as error:
        raise InvalidInput(
            "invalid cursor",
            details=f"{cursor[:80]!r} was not given out by a list",
            resolution="use next_cursor of the page before, or none for the first page",
            field="cursor",
        ) from error
    return created_at, row_id


def read_request(page: PageRequest) -> tuple[int, Position | None]:
    """Give limit and start of a page.

    Raises:
        InvalidInput: the limit is not 1 to MAX_PAGE or the cursor is foreign.
    """
    limit = check_range(page.limit, 1, MAX_PAGE, what="limit")
    return limit, None if page.cursor is None else decode_cursor(page.cursor)


def cut_page(rows: Sequence[T], limit: int, position: Callable[[T], Position]) -> Page[T]:
    """Make a page of up to ``limit`` of ``rows``, which hold one more than that when there is a next page."""
    items = rows[:limit]
    return Page(items=items, next_cursor=encode_cursor(position(items[-1])) if len(rows) > limit else None)
