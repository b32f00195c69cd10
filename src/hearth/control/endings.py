"""Why sandboxes ended, for as long as it is remembered: of destroyed ones, and of living ones whose machine died."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from hearth.control.exit_cause import ended_by
from hearth.control.reach import within_reach
from hearth.errors import NotFound
from hearth.model import Ending, ExitCause, ExitKind, Sandbox, SandboxState, User
from hearth.store.base import FIRST_PAGE, Page, PageRequest, Store

WORDS = {
    ExitKind.USER: "it was destroyed",
    ExitKind.TTL: "its time to live was over",
}
DIED = (SandboxState.FAILED, SandboxState.LOST)
UNKNOWN_END = "its machine ended, nobody knows why"


@dataclass(frozen=True, kw_only=True)
class Endings:
    """Use cases of ends."""

    store: Store

    async def find(self, user: User, reference: str) -> Ending:
        """Tell why a sandbox ended, by id or name; of several that bore the name the last.

        Raises:
            NotFound: the user has had none such, or it has not ended.
        """
        scope = None if user.admin else user.id
        try:
            sandbox = await within_reach(self.store.sandboxes, user, reference)
        except NotFound:
            return await self.store.endings.find(scope, reference)
        if sandbox.exit_cause is not None:
            return ending_of(sandbox, sandbox.exit_cause, sandbox.exit_cause.at)
        return await self.store.endings.find(scope, reference)

    async def list(self, user: User, page: PageRequest = FIRST_PAGE) -> Page[Ending]:
        """Give a page of the user's destroyed sandboxes (everybody's for an administrator), first ends first."""
        return await self.store.endings.list(None if user.admin else user.id, page=page)


def cause_of_removal(sandbox: Sandbox, kind: ExitKind, now: datetime) -> ExitCause | None:
    """Tell why a sandbox that is destroyed now has ended: what ended its machine before, else ``kind``.

    None for one that was never brought up.
    """
    if sandbox.exit_cause is not None:
        return sandbox.exit_cause
    if sandbox.state in DIED:
        return ended_by(ExitKind.UNKNOWN, sandbox.error or UNKNOWN_END, now)
    if sandbox.state in (SandboxState.RUNNING, SandboxState.STOPPED):
        return ended_by(kind, WORDS.get(kind, UNKNOWN_END), now)
    return None


def ending_of(sandbox: Sandbox, cause: ExitCause, ended_at: datetime) -> Ending:
    """Give what is to be remembered of a sandbox."""
    return Ending(
        sandbox_id=sandbox.id,
        owner=sandbox.owner,
        name=sandbox.spec.name,
        image=sandbox.spec.image,
        cpus=sandbox.spec.cpus,
        memory_mib=sandbox.spec.memory_mib,
        created_at=sandbox.created_at,
        ended_at=ended_at,
        exit_cause=cause,
    )
