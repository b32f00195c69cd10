"""What every store offers for the audit log: rows are added and, when they are old, dropped; none is ever changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from hearth.store.page import FIRST_PAGE, Page, PageRequest
from hearth.tenancy import AuditEntry


@dataclass(frozen=True, kw_only=True)
class AuditFilter:
    """Which entries are asked for; None leaves a field open."""

    user_id: str | None = None
    action: str | None = None
    since: datetime | None = None


EVERYTHING = AuditFilter()


class AuditStore(Protocol):
    """Who did what."""

    async def append(self, entries: Sequence[AuditEntry]) -> None:
        """Add entries, all or none."""
        ...

    async def list(self, wanted: AuditFilter = EVERYTHING, page: PageRequest = FIRST_PAGE) -> Page[AuditEntry]:
        """A page of entries, the oldest first."""
        ...

    async def expire(self, before: datetime) -> int:
        """Drop those of before then; gives how many."""
        ...
