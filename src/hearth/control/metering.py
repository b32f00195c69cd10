"""What sandboxes use of this host, sampled when somebody asks; it wakes nothing and counts as no use.

Whoever asks often is given what was read a moment ago, and one round of reading takes no longer than its budget: what
does not fit into it is as it was, and comes first in the next round.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Protocol, runtime_checkable

import structlog

from hearth.control.fleet import Fleet
from hearth.host.clock import Clock
from hearth.host.netlink import LinkTraffic
from hearth.host.process_use import allocated_bytes, cpu_s
from hearth.host.reclaim import MemoryUse, memory_use
from hearth.host.threads import on_own_thread
from hearth.jobs.bringup import Workshop

log = structlog.get_logger(__name__)

FRESH_S = 1.0
"""What was read so lately is not read again."""
FRESH_COLD_S = 30.0
"""Of a sandbox without a process only the disk is to be read, which nobody writes."""
BUDGET_S = 0.25
"""For one round; a machine of 256 MiB takes some 0.2 ms, one of 4 GiB some ms (its page tables are walked)."""


@runtime_checkable
class _Process(Protocol):
    """A machine that is a process of this host."""

    @property
    def pid(self) -> int: ...


@dataclass(frozen=True, kw_only=True)
class Usage:
    """What a sandbox has used at a moment; None is what cannot be told of it, as of one that is on disk.

    Args:
        cpu_s: seconds since its process started; a wake from disk begins anew.
        memory: of its process, VMM and guest together.
        disk_bytes: what its files take, those of its memory on disk included, without volumes.
        traffic: to and from others since it was connected, the agent's own not counted.
    """

    sandbox_id: str
    at: datetime
    at_s: float
    cpu_s: float | None = None
    memory: MemoryUse | None = None
    disk_bytes: int = 0
    traffic: LinkTraffic | None = None


class Meter:
    """Samples the sandboxes of one daemon."""

    def __init__(self, workshop: Workshop, fleet: Fleet, clock: Clock, *, budget_s: float = BUDGET_S) -> None:
        self._workshop = workshop
        self._fleet = fleet
        self._clock = clock
        self._budget_s = budget_s
        self._known: dict[str, Usage] = {}
        self._round = asyncio.Lock()
        self.rounds_cut = 0
        """Rounds whose budget did not suffice for all."""

    async def read(self, sandbox_ids: Sequence[str]) -> Mapping[str, Usage]:
        """Tell what these sandboxes use. One that was not got to yet is not among the answers."""
        async with self._round:
            due = self._due(sandbox_ids)
            if due:
                await self._sample(due)
            return {each: self._known[each] for each in sandbox_ids if each in self._known}

    def forget_all_but(self, sandbox_ids: Sequence[str]) -> None:
        """Drop what is known of sandboxes that are no more."""
        alive = set(sandbox_ids)
        self._known = {each: usage for each, usage in self._known.items() if each in alive}

    def _due(self, sandbox_ids: Sequence[str]) -> dict[str, int | None]:
        """Give those to be read now, the longest unread first, each with its process."""
        now_s = self._clock.monotonic()
        due: list[tuple[float, str, int | None]] = []
        for sandbox_id in sandbox_ids:
            member, known = self._fleet.member(sandbox_id), self._known.get(sandbox_id)
            pid = member.machine.pid if member is not None and isinstance(member.machine, _Process) else None
            has_changed = known is not None and (known.cpu_s is None) is not (pid is None)
            fresh_s = FRESH_COLD_S if pid is None else FRESH_S
            if known is None or has_changed or now_s - known.at_s >= fresh_s:
                due.append((0.0 if known is None else known.at_s, sandbox_id, pid))
        return {sandbox_id: pid for _, sandbox_id, pid in sorted(due, key=lambda each: each[0])}

    async def _sample(self, due: Mapping[str, int | None]) -> None:
        traffic = await self._traffic() if any(pid is not None for pid in due.values()) else {}
        known = await on_own_thread("meter", lambda: self._read_all(due))
        if len(known) < len(due):
            self.rounds_cut += 1
            log.debug("not all sandboxes were read", read=len(known), due=len(due))
        for sandbox_id, usage in known.items():
            # It may have been stopped meanwhile: then there is no process any more whose figures these are.
            is_up = self._fleet.member(sandbox_id) is not None
            self._known[sandbox_id] = replace(usage, traffic=traffic.get(sandbox_id) if is_up else None)

    async def _traffic(self) -> Mapping[str, LinkTraffic]:
        try:
            return await self._workshop.network.traffic()
        except OSError as error:
            log.warning("traffic not read", error=str(error))
            return {}

    def _read_all(self, due: Mapping[str, int | None]) -> dict[str, Usage]:
        """Read until the budget is used up, at least one; blocking."""
        deadline_s = time.monotonic() + self._budget_s
        found: dict[str, Usage] = {}
        for sandbox_id, pid in due.items():
            found[sandbox_id] = self._read(sandbox_id, pid)
            if time.monotonic() > deadline_s:
                break
        return found

    def _read(self, sandbox_id: str, pid: int | None) -> Usage:
        used_s: float | None = None
        memory: MemoryUse | None = None
        if pid is not None:
            try:
                used_s, memory = cpu_s(pid), memory_use(pid)
            except (OSError, KeyError):  # it ended at this moment: a process that has ended has no memory to be listed
                used_s = memory = None
        disk_bytes = allocated_bytes(self._workshop.data.machine(sandbox_id))
        disk_bytes += allocated_bytes(self._workshop.memory(sandbox_id))
        return Usage(
            sandbox_id=sandbox_id,
            at=self._clock.now(),
            at_s=self._clock.monotonic(),
            cpu_s=used_s,
            memory=memory,
            disk_bytes=disk_bytes,
        )
