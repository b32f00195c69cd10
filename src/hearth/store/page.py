"""Slices of lists, as every store gives them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

MAX_PAGE = 1000
"""Most rows one call of a ``list`` gives."""

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Page(Generic[T]):
    """A slice of a list, oldest first; ``next_cursor`` is None on the last page."""

    items: Sequence[T]
    next_cursor: str | None


@dataclass(frozen=True, kw_only=True)
class PageRequest:
    """Which slice: ``cursor`` is the ``next_cursor`` of the page before, ``limit`` 1 to MAX_PAGE."""

    limit: int = 100
    cursor: str | None = None


FIRST_PAGE = PageRequest()
