"""The machines that run now: who they are, how to talk to them, and somebody who notices when one ends."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog

from hearth.engine.base import Machine, MachineEnd, MachineSpec, SleepingMachine
from hearth.guest.client import Guest

log = structlog.get_logger(__name__)

OnDeath = Callable[[str, MachineEnd], Awaitable[None]]
"""Called with the sandbox's id and how its VMM ended."""


Tidy = Callable[[str], Awaitable[None]]
"""Called with the sandbox's id when all who used a dead machine were told; may wait for them."""
OnHalt = Callable[[str, str], Awaitable[None]]
"""Called with the sandbox's id and why its VMM stopped the CPUs."""


@dataclass(frozen=True, kw_only=True)
class Member:
    """One running machine, what it was started from, and the way to its agent."""

    machine: Machine
    spec: MachineSpec
    guest: Guest


class Fleet:
    """Machines by sandbox id. One task a machine waits for its end; a machine taken out first dies unwatched."""

    def __init__(self, on_death: OnDeath, on_halt: OnHalt, tidy: Tidy) -> None:
        self._on_death = on_death
        self._tidy = tidy
        self._on_halt = on_halt
        self._members: dict[str, Member] = {}
        self._watchers: dict[str, asyncio.Task[None]] = {}

    def __len__(self) -> int:
        return len(self._members)

    def add(self, sandbox_id: str, member: Member) -> None:
        """Take a machine in and watch over it."""
        self._members[sandbox_id] = member
        self._watchers[sandbox_id] = asyncio.create_task(self._watch(sandbox_id, member), name=f"watch {sandbox_id}")

    def member(self, sandbox_id: str) -> Member | None:
        """Give a machine, or None when it is not with us."""
        return self._members.get(sandbox_id)

    def ids(self) -> list[str]:
        """Tell which machines are with us."""
        return list(self._members)

    async def take(self, sandbox_id: str) -> Member | None:
        """Take a machine out: its end is no longer news."""
        member = self._members.pop(sandbox_id, None)
        watcher = self._watchers.pop(sandbox_id, None)
        if watcher is not None:
            watcher.cancel()
            await asyncio.gather(watcher, return_exceptions=True)
        return member

    async def end(self, sandbox_id: str) -> None:
        """Kill a machine, with what is under way in it; one that does not run is fine."""
        member = await self.take(sandbox_id)
        if member is not None:
            member.guest.disconnect()
            await member.machine.kill()

    async def release(self) -> None:
        """Let go of every machine and leave it running, for the next daemon."""
        for sandbox_id in list(self._members):
            member = await self.take(sandbox_id)
            if member is not None:
                await member.machine.release()

    async def _watch(self, sandbox_id: str, member: Member) -> None:
        halts = asyncio.create_task(self._watch_halts(sandbox_id, member.machine), name=f"halts of {sandbox_id}")
        try:
            end = await member.machine.wait()
        finally:
            halts.cancel()
            await asyncio.gather(halts, return_exceptions=True)
        log.warning("machine ended", sandbox=sandbox_id, how=end.how)
        self._members.pop(sandbox_id, None)
        self._watchers.pop(sandbox_id, None)
        try:
            await member.machine.release()
            if sandbox_id not in self._members:  # else it is up again by now
                await self._on_death(sandbox_id, end)
        finally:
            # A dead guest says no goodbye: without this, whoever reads from it would wait for TCP to give up.
            member.guest.disconnect()
        await self._tidy(sandbox_id)

    async def _watch_halts(self, sandbox_id: str, machine: Machine) -> None:
        while isinstance(machine, SleepingMachine):
            why = await machine.halted()
            log.error("machine halted", sandbox=sandbox_id, why=why)
            await self._on_halt(sandbox_id, why)
