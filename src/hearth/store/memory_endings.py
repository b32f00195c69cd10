"""What is remembered of destroyed sandboxes, in memory."""

from __future__ import annotations

from collections.abc import Sequence

from hearth.host.clock import Clock
from hearth.model import Ending
from hearth.store import refusals
from hearth.store.base import ENDINGS_KEPT_FOR, ENDINGS_KEPT_PER_OWNER, FIRST_PAGE, Page, PageRequest
from hearth.store.memory_tables import Tables, page_of
from hearth.store.paging import Position


class MemoryEndings:
    """``EndingStore`` in memory."""

    def __init__(self, tables: Tables, clock: Clock) -> None:
        self._tables = tables
        self._clock = clock

    async def record(self, ending: Ending) -> None:
        if ending.owner not in self._tables.users:
            raise refusals.not_found("user", ending.owner)
        self._tables.endings.setdefault(ending.sandbox_id, ending)
        kept = [known for known in self._kept(None) if known.owner != ending.owner]
        kept += sorted(self._kept(ending.owner), key=_position)[-ENDINGS_KEPT_PER_OWNER:]
        self._tables.endings = {known.sandbox_id: known for known in kept}

    async def find(self, owner: str | None, reference: str) -> Ending:
        for field in ("sandbox_id", "name"):
            fitting = [ending for ending in self._kept(owner) if getattr(ending, field) == reference]
            if fitting:
                return max(fitting, key=_position)
        raise refusals.not_found("destroyed sandbox", reference)

    async def list(self, owner: str | None, *, page: PageRequest = FIRST_PAGE) -> Page[Ending]:
        return page_of(self._kept(owner), page, _position)

    def _kept(self, owner: str | None) -> Sequence[Ending]:
        """Leave out what is too old, though nothing may have been recorded since to sweep it away."""
        oldest = self._clock.now() - ENDINGS_KEPT_FOR
        known = self._tables.endings.values()
        return [ending for ending in known if owner in (None, ending.owner) and ending.ended_at > oldest]


def _position(ending: Ending) -> Position:
    return ending.ended_at, ending.sandbox_id
