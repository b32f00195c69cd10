"""Hosts in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from hearth.host.clock import Clock
from hearth.store.host_store import Host, is_taken, spoken_for


class MemoryHosts:
    """``HostStore`` in this process."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._hosts: dict[str, Host] = {}

    async def enter(self, host: Host, *, is_shared: bool = True) -> None:
        known, now = self._hosts.get(host.id), self._clock.now()
        if is_shared and known is not None and is_taken(known, host, now):
            raise spoken_for(known)
        self._hosts[host.id] = replace(host, seen_at=now)

    async def beat(self, host: Host) -> bool:
        known = self._hosts.get(host.id)
        if known is None or known.run != host.run:
            return False
        self._hosts[host.id] = replace(known, seen_at=self._clock.now())
        return True

    async def leave(self, host: Host) -> None:
        known = self._hosts.get(host.id)
        if known is not None and known.run == host.run:
            self._hosts[host.id] = replace(known, seen_at=None)

    async def list(self) -> Sequence[Host]:
        return sorted(self._hosts.values(), key=lambda host: (host.name, host.id))
