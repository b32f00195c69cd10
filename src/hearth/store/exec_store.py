"""What every store offers for commands that were run: the index over their logs."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from hearth.execs import Exec, ExecState
from hearth.store.page import FIRST_PAGE, Page, PageRequest


@dataclass(frozen=True, kw_only=True)
class LogUsage:
    """Bytes that logs take on disk, by sandbox and by owner, and how many commands of a sandbox have ended."""

    by_sandbox: Mapping[str, int]
    by_owner: Mapping[str, int]
    ended: Mapping[str, int]


class ExecStore(Protocol):
    """Commands. ``owner`` None stands for an administrator, who sees everybody's. With a sandbox's row they go."""

    async def save(self, execs: Sequence[Exec]) -> None:
        """Remember commands as they are now, new ones and known ones; those of sandboxes that are gone are left out."""
        ...

    async def get(self, owner: str | None, exec_id: str) -> Exec:
        """Raises NotFound."""
        ...

    async def list(
        self,
        owner: str | None,
        *,
        sandbox_id: str,
        states: Collection[ExecState] = (),
        page: PageRequest = FIRST_PAGE,
    ) -> Page[Exec]:
        """Those of a sandbox in one of ``states`` (none given: in any), oldest first."""
        ...

    async def running(self) -> Sequence[Exec]:
        """Give all that are RUNNING, of whomever."""
        ...

    async def known(self) -> Mapping[str, frozenset[str]]:
        """Give the ids of all commands, by sandbox."""
        ...

    async def usage(self) -> LogUsage:
        """Count what there is."""
        ...

    async def ended(
        self,
        *,
        sandbox_id: str | None = None,
        owner: str | None = None,
        before: datetime | None = None,
        limit: int = 100,
    ) -> Sequence[Exec]:
        """Give those that are over (of a sandbox, of an owner, before a moment), the first to end first."""
        ...

    async def delete(self, exec_ids: Collection[str]) -> None:
        """Forget commands; unknown ones are fine."""
        ...
