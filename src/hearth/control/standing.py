"""Speaks for this host in the database, so that nobody else does: a copy of the data directory would."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import structlog

from hearth.errors import HearthError
from hearth.host.clock import Clock
from hearth.store.host_store import BEAT_S, Host, HostStore

log = structlog.get_logger(__name__)


class Standing:
    """A host's entry in the database."""

    def __init__(self, hosts: HostStore, host: Host, clock: Clock, *, is_shared: bool) -> None:
        """``is_shared`` tells of a database that other daemons may use."""
        self._hosts = hosts
        self._is_shared = is_shared
        self._host = host
        self._clock = clock

    @contextlib.asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        """Enter, and leave at the end.

        Raises:
            Conflict: another daemon speaks for this host.
        """
        await self._hosts.enter(self._host, is_shared=self._is_shared)
        try:
            yield
        finally:
            try:
                await self._hosts.leave(self._host)
            except HearthError as error:
                log.warning("the database was not told that this daemon ends", error=str(error))

    async def run(self) -> None:
        """Say that the daemon lives until cancelled."""
        while True:
            await self._clock.sleep(BEAT_S)
            try:
                if not await self._hosts.beat(self._host):
                    log.error("another daemon speaks for this host; see docs/database.md", host=self._host.id)
            except HearthError as error:
                log.warning("the database was not told that this daemon lives", error=str(error))
