"""The audit log: who changed what, from where, and what came of it. Entries that come together are written together."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta

import structlog

from hearth.control.users import Users
from hearth.errors import HearthError
from hearth.host.clock import Clock
from hearth.host.waiting import until_done
from hearth.model import User
from hearth.store.audit_store import AuditFilter, AuditStore
from hearth.store.base import Page, PageRequest
from hearth.tenancy import AuditEntry

log = structlog.get_logger(__name__)

EXPIRE_EVERY_S = 3600.0


class Audit:
    """Use cases of the audit log.

    Args:
        kept_days: how long entries are kept.
    """

    def __init__(self, store: AuditStore, users: Users, clock: Clock, *, kept_days: int) -> None:
        self._store = store
        self._users = users
        self._clock = clock
        self._kept = timedelta(days=kept_days)
        self._waiting: list[AuditEntry] = []
        self._writing: asyncio.Task[None] | None = None

    def now(self) -> datetime:
        """Give the time by which entries are stamped."""
        return self._clock.now()

    def note(self, entry: AuditEntry) -> asyncio.Task[None]:
        """Write an entry soon; the task ends when it is written, or the log was told that it could not be."""
        self._waiting.append(entry)
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write(), name="audit log")
        return self._writing

    async def record(self, entry: AuditEntry) -> None:
        """Write an entry and wait until it is: whoever gets an answer finds it in the log."""
        await asyncio.wait([self.note(entry)])

    async def list(
        self, actor: User, *, reference: str | None, action: str | None, since: datetime | None, page: PageRequest
    ) -> Page[AuditEntry]:
        """Give a page of the actor's own entries; administrators see everybody's, or those of ``reference``.

        Raises:
            NotFound: no such user, or the actor may not know.
        """
        user_id = None if actor.admin else actor.id
        if reference is not None:
            user_id = (await self._users.get(actor, reference)).id
        return await self._store.list(AuditFilter(user_id=user_id, action=action, since=since), page)

    async def run(self) -> None:
        """Drop what is too old, until cancelled."""
        while True:
            try:
                dropped = await self._store.expire(self._clock.now() - self._kept)
            except HearthError as error:
                log.error("old audit entries stay", error=str(error))
            else:
                if dropped:
                    log.info("old audit entries dropped", count=dropped)
            await self._clock.sleep(EXPIRE_EVERY_S)

    async def close(self) -> None:
        """Write what is waiting."""
        if self._writing is not None:
            await until_done(self._writing)

    async def _write(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, []
            try:
                await self._store.append(batch)
            except HearthError as error:
                # The changes are done: then at least this log holds who made them.
                for entry in batch:
                    log.error("not in the audit log", error=str(error), entry=repr(entry))
