"""The hands and eyes of the thermal loop: what it sees of this host's sandboxes and how it cools them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

import structlog

from hearth.control.activity import Signs
from hearth.control.fleet import Fleet, Member
from hearth.control.heat import InUse, Observation
from hearth.control.residents import Resident
from hearth.control.sleep import Sleep
from hearth.control.wakeable import BOOTABLE
from hearth.errors import HearthError
from hearth.model import Heat, Sandbox, SandboxState
from hearth.store.base import MAX_PAGE, PageRequest, Store

log = structlog.get_logger(__name__)

ASK_TIMEOUT_S = 2.0
ASKED_AT_ONCE = 8
"""A look costs an emulated guest some milliseconds of its CPU."""

Expire = Callable[[Sandbox], Awaitable[None]]
"""Destroys a sandbox whose time is over."""


class Thermostat:
    """Implements ``hearth.control.heat.Thermostat`` over the sandboxes of one daemon."""

    def __init__(self, *, store: Store, fleet: Fleet, sleep: Sleep, can_sleep: bool, expire: Expire) -> None:
        self._store = store
        self._fleet = fleet
        self._sleep = sleep
        self._can_sleep = can_sleep
        self._expire = expire
        self._asking = asyncio.Semaphore(ASKED_AT_ONCE)

    async def observe(self) -> Sequence[Observation]:
        """Look at every sandbox whose time to live may end; only hot ones are asked themselves."""
        sandboxes: list[Sandbox] = []
        states = (SandboxState.RUNNING, SandboxState.STOPPED, *BOOTABLE)
        page = PageRequest(limit=MAX_PAGE)
        while True:
            found = await self._store.sandboxes.list(None, states=states, page=page)
            sandboxes += found.items
            if found.next_cursor is None:
                break
            page = PageRequest(limit=MAX_PAGE, cursor=found.next_cursor)
        looks = await asyncio.gather(*(self._try_to_look(sandbox) for sandbox in sandboxes))
        return [look for look in looks if look is not None]

    async def pause(self, sandbox_id: str) -> None:
        """Stop the CPUs of a hot, unused sandbox."""
        if not await self._sleep.pause(sandbox_id):
            raise _in_use(sandbox_id)

    async def page_out(self, sandbox_id: str) -> None:
        """Have a paused sandbox's memory paged out."""
        if not await self._sleep.page_out(sandbox_id):
            raise _in_use(sandbox_id)

    async def stop(self, sandbox_id: str) -> None:
        """Take an unused sandbox to disk."""
        if await self._sleep.stop(sandbox_id, idle_only=True) is None:
            raise _in_use(sandbox_id)

    async def expire(self, sandbox_id: str) -> None:
        """Destroy a sandbox whose time to live is over."""
        await self._expire(await self._store.sandboxes.get(sandbox_id))

    async def _try_to_look(self, sandbox: Sandbox) -> Observation | None:
        try:
            return await self._look(sandbox)
        except Exception as error:  # noqa: BLE001  one sandbox that cannot be looked at must hide no other
            log.error("sandbox not looked at", sandbox=sandbox.id, error=repr(error))
            return None

    async def _look(self, sandbox: Sandbox) -> Observation:
        resident = self._sleep.residents.look_at(sandbox.id)
        member = self._fleet.member(sandbox.id)
        cold = sandbox.state is not SandboxState.RUNNING or member is None
        signs = Signs(operations=resident.users, last_operation_s=resident.used_at_s)
        if member is not None and resident.settled and not sandbox.spec.keep_hot and self._can_sleep:
            signs = await self._ask(resident, member, signs)
        return Observation(
            id=sandbox.id,
            heat=Heat.COLD if cold else resident.heat,
            signs=signs,
            busy=resident.lock.locked(),
            can_sleep=self._can_sleep,
            keep_hot=sandbox.spec.keep_hot,
            paged_out=resident.paged_out,
            idle_pause_s=sandbox.spec.idle_pause_s,
            idle_stop_s=sandbox.spec.idle_stop_s,
            expires_at=sandbox.expires_at,
            private_mib=0 if member is None else member.spec.memory_mib,
        )

    async def _ask(self, resident: Resident, member: Member, known: Signs) -> Signs:
        """Ask a hot guest what it is busy with; one that does not answer is judged by what the host knows, and that."""
        async with self._asking:
            if not resident.settled:
                return known
            try:
                with resident.looking():
                    activity = await member.guest.activity(timeout_s=ASK_TIMEOUT_S)
            except HearthError as error:
                log.debug("guest not asked", machine=member.machine.id, error=str(error))
                return replace(known, silent=True)
        return Signs(
            operations=known.operations,
            last_operation_s=known.last_operation_s,
            attached=activity.attached_sessions,
            cpu_ms=activity.cpu_ms,
            guest_idle_s=max(0.0, time.time() - activity.last_activity_unix),
            guest_used_unix=activity.last_activity_unix,
        )


def _in_use(sandbox_id: str) -> InUse:
    return InUse("the sandbox is in use", details=sandbox_id)
