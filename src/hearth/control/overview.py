"""The daemon at a glance: how many sandboxes there are and how they are, and what the host has left."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from hearth.control.metering import Meter
from hearth.control.pages import every
from hearth.control.sandboxes import Sandboxes
from hearth.host.pressure import Memory, read_memory
from hearth.model import Heat, Sandbox, User

MIB = 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class Host:
    """What the host has, in MiB and bytes; ``load_1m`` of ``cpus``."""

    cpus: int
    load_1m: float
    memory: Memory
    disk_total_bytes: int
    disk_free_bytes: int


@dataclass(frozen=True, kw_only=True)
class Glance:
    """What there is; ``host`` and ``pool`` are for administrators."""

    engine: str
    started_at: datetime
    now: datetime
    heats: Counter[Heat]
    host: Host | None = None
    pool: dict[str, int] | None = None


class Overview:
    """Looks at a daemon as a whole; made when that is ready."""

    def __init__(self, sandboxes: Sandboxes) -> None:
        self._sandboxes = sandboxes
        self._workshop = sandboxes.workshop
        self._started_at = sandboxes.workshop.clock.now()
        self.meter = Meter(sandboxes.workshop, sandboxes.fleet, sandboxes.workshop.clock)

    async def every(self, user: User | None) -> Sequence[Sandbox]:
        """Give all sandboxes of a user; without one, or an administrator's, everybody's."""
        owner = None if user is None or user.admin else user.id
        store = self._sandboxes.store.sandboxes
        return await every(lambda page: store.list(owner, labels={}, page=page))

    async def glance(self, user: User) -> Glance:
        """Tell a user of the sandboxes there are, an administrator of the host, too."""
        heats = Counter(map(self._sandboxes.heat, await self.every(user)))
        return Glance(
            engine=self._workshop.engine.name,
            started_at=self._started_at,
            now=self._workshop.clock.now(),
            heats=heats,
            host=await self.host() if user.admin else None,
            pool=self._sandboxes.pool.sizes() if user.admin else None,
        )

    async def host(self) -> Host:
        """Look at the host."""
        return await asyncio.to_thread(self._host)

    def _host(self) -> Host:
        disk = shutil.disk_usage(self._workshop.data.root)
        return Host(
            cpus=os.cpu_count() or 1,
            load_1m=os.getloadavg()[0],
            memory=read_memory(),
            disk_total_bytes=disk.total,
            disk_free_bytes=disk.free,
        )
