"""Which ports listen in sandboxes, told by their agents."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import structlog

from hearth.control.sandboxes import Sandboxes
from hearth.errors import HearthError
from hearth.model import Heat, Sandbox, User
from hearth.store.base import MAX_PAGE
from hearth.wire.messages import PortInfo

log = structlog.get_logger(__name__)

ASKED_AT_ONCE = 16


@dataclass(frozen=True, kw_only=True)
class Listening:
    """One sandbox's listening ports; None when it was not asked, or did not answer."""

    sandbox: Sandbox
    ports: Sequence[PortInfo] | None


async def ports_of(sandboxes: Sandboxes, user: User, reference: str) -> Listening:
    """Ask one sandbox, woken if need be.

    Raises:
        NotFound: no such sandbox.
        Conflict, SnapshotRefused, EngineFailed, GuestFailed, TimedOut: it did not come up, or did not answer.
    """
    sandbox = await sandboxes.get(user, reference)
    async with sandboxes.awake(user, sandbox.id) as guest:
        return Listening(sandbox=sandbox, ports=await guest.ports())


async def all_ports(sandboxes: Sandboxes, user: User) -> Sequence[Listening]:
    """Ask all of a user's sandboxes whose CPUs run; that neither wakes one nor keeps one awake."""
    found: list[Sandbox] = []
    cursor: str | None = None
    while True:
        page = await sandboxes.list(user, labels={}, limit=MAX_PAGE, cursor=cursor)
        found += page.items
        if (cursor := page.next_cursor) is None:
            break
    gate = asyncio.Semaphore(ASKED_AT_ONCE)

    async def ask(sandbox: Sandbox) -> Listening:
        async with gate:
            return Listening(sandbox=sandbox, ports=await _asked(sandboxes, sandbox))

    return await asyncio.gather(*map(ask, found))


async def _asked(sandboxes: Sandboxes, sandbox: Sandbox) -> Sequence[PortInfo] | None:
    member = sandboxes.fleet.member(sandbox.id)
    resident = sandboxes.sleep.residents[sandbox.id]
    if member is None or resident.heat is not Heat.HOT or not resident.settled:
        return None
    with resident.looking():
        try:
            return await member.guest.ports()
        except HearthError as error:
            log.info("ports not told", sandbox=sandbox.id, error=str(error))
            return None
