"""After a start: what an earlier daemon left is adopted, finished or undone; orphans are swept last."""

from __future__ import annotations

from dataclasses import dataclass

import structlog

from hearth.control.fleet import Member
from hearth.control.sandboxes import Sandboxes
from hearth.guest.client import Guest
from hearth.jobs.bringup import Bringup, Workshop
from hearth.jobs.runner import UNFINISHED, Runner
from hearth.model import Sandbox, SandboxState
from hearth.store.base import MAX_PAGE, PageRequest, Store

log = structlog.get_logger(__name__)

LOST = "its VMM was gone when the daemon started"


@dataclass(frozen=True, kw_only=True)
class Reconciled:
    """What was found, counted."""

    adopted: int
    lost: int
    undone: int
    swept: int


async def reconcile(store: Store, workshop: Workshop, runner: Runner, sandboxes: Sandboxes) -> Reconciled:
    """Bring rows and machines in agreement; runs under the data directory's lock, before anybody is served."""
    adopted = lost = undone = 0
    await _unwind(store, workshop, runner)
    known = await _all_sandboxes(store)
    for sandbox in known:
        if sandbox.state in (SandboxState.CREATING, SandboxState.DESTROYING):
            await sandboxes.forget(sandbox)
            log.info("unfinished sandbox removed", sandbox=sandbox.id, state=sandbox.state)
            undone += 1
        elif sandbox.state is SandboxState.RUNNING:
            if await _adopt(workshop, sandboxes, sandbox):
                adopted += 1
            else:
                await workshop.take_down(sandbox.id)
                await store.sandboxes.transition(sandbox.id, (SandboxState.RUNNING,), SandboxState.LOST, error=LOST)
                lost += 1
    swept = await _sweep(workshop, {sandbox.id for sandbox in known})
    return Reconciled(adopted=adopted, lost=lost, undone=undone, swept=swept)


async def _unwind(store: Store, workshop: Workshop, runner: Runner) -> None:
    """Undo every job that a dead daemon left; holding the directory's lock proves that it is dead."""
    jobs = await store.jobs.list(states=UNFINISHED, page=PageRequest(limit=MAX_PAGE))
    for job in jobs.items:
        plan = Bringup(workshop, None).plan()
        if job.kind != plan.kind:
            log.warning("unfinished job of a kind unknown to this version", job=job.id, kind=job.kind)
            continue
        await runner.unwind(job.id, plan, displacing=job.lease_owner)
        log.info("unfinished job undone", job=job.id, sandbox=job.subject, step=job.step)


async def _adopt(workshop: Workshop, sandboxes: Sandboxes, sandbox: Sandbox) -> bool:
    machine = await workshop.engine.adopt(workshop.place(sandbox.id))
    if machine is None:
        return False
    guest = Guest(machine.dialer, workshop.agent_token(sandbox.id))
    sandboxes.fleet.add(sandbox.id, Member(machine=machine, guest=guest))
    log.info("machine adopted", sandbox=sandbox.id)
    return True


async def _sweep(workshop: Workshop, known: set[str]) -> int:
    """Remove machines and networks of this data directory that no row speaks of."""
    found = {entry.name for entry in workshop.data.machines.iterdir()}
    if workshop.engine.capabilities.network:
        found |= await workshop.network.list()
    orphans = found - known
    for orphan in sorted(orphans):
        log.warning("orphan removed", sandbox=orphan)
        await workshop.take_down(orphan)
    return len(orphans)


async def _all_sandboxes(store: Store) -> list[Sandbox]:
    sandboxes: list[Sandbox] = []
    cursor: str | None = None
    while True:
        page = await store.sandboxes.list(None, page=PageRequest(limit=MAX_PAGE, cursor=cursor))
        sandboxes += page.items
        cursor = page.next_cursor
        if cursor is None:
            return sandboxes
