"""After a start: what an earlier daemon left is adopted, finished or undone; orphans are swept last."""

from __future__ import annotations

from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

import structlog

from hearth.control.image_work import unfinished_plans
from hearth.control.pages import every
from hearth.control.sandboxes import Sandboxes
from hearth.control.sleep import Recovered
from hearth.jobs.bringup import Bringup, Workshop
from hearth.jobs.runner import UNFINISHED, Runner
from hearth.model import Job, Sandbox, SandboxState
from hearth.store.base import Store

log = structlog.get_logger(__name__)


@dataclass(kw_only=True)
class Reconciled:
    """What was found, counted; ``postponed`` is what resisted and will be tried again at the next start."""

    adopted: int = 0
    asleep: int = 0
    lost: int = 0
    undone: int = 0
    swept: int = 0
    postponed: int = 0


class Reconciler:
    """Brings rows and machines in agreement, under the data directory's lock and before anybody is served.

    One thing that resists does not keep the others, or the daemon, from coming up.
    """

    def __init__(self, store: Store, workshop: Workshop, runner: Runner, sandboxes: Sandboxes) -> None:
        self._store = store
        self._workshop = workshop
        self._runner = runner
        self._sandboxes = sandboxes
        self._found = Reconciled()

    async def run(self) -> Reconciled:
        """Undo what jobs began, look after every sandbox, sweep orphans last, then the snapshots nobody needs."""
        for job in await every(lambda page: self._store.jobs.list(states=UNFINISHED, page=page)):
            if not job.any_host:  # those go on with whoever holds their lease, or takes it when that one is dead
                await self._attempt("job", job.id, self._unwind(job))
        known = await every(lambda page: self._store.sandboxes.list(None, page=page))
        for sandbox in known:
            await self._attempt("sandbox", sandbox.id, self._look_after(sandbox))
        await self._attempt("volumes", "all", self._sandboxes.volumes.recover(known))
        for orphan in sorted(await self._leftovers() - {sandbox.id for sandbox in known}):
            await self._attempt("orphan", orphan, self._sweep(orphan))
        await self._attempt("snapshots", "all", self._sandboxes.shelf.start())
        return self._found

    async def _attempt(self, kind: str, subject: str, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Exception as error:  # noqa: BLE001  whatever a VMM that was broken into answers, the others come up
            self._found.postponed += 1
            log.error("recovery postponed", kind=kind, subject=subject, error=f"{type(error).__name__}: {error}")

    async def _unwind(self, job: Job) -> None:
        """Undo a job; holding the directory's lock proves that whoever ran it is dead."""
        machines = {plan.kind: plan for plan in Bringup(self._workshop, None).plans()}
        images = {plan.kind: plan for plan in unfinished_plans()}
        if job.kind in machines:
            await self._runner.unwind(job.id, machines[job.kind], displacing=job.lease_owner)
        elif job.kind in images:
            await self._runner.unwind(job.id, images[job.kind], displacing=job.lease_owner)
        else:
            log.warning("unfinished job of a kind unknown to this version", job=job.id, kind=job.kind)
            return
        log.info("unfinished job undone", job=job.id, sandbox=job.subject, step=job.step)

    async def _look_after(self, sandbox: Sandbox) -> None:
        if sandbox.state in (SandboxState.CREATING, SandboxState.DESTROYING):
            await self._sandboxes.creation.forget(sandbox)
            log.info("unfinished sandbox removed", sandbox=sandbox.id, state=sandbox.state)
            self._found.undone += 1
        elif sandbox.state in (SandboxState.RUNNING, SandboxState.STOPPED):
            match await self._sandboxes.sleep.recover(sandbox):
                case Recovered.ADOPTED:
                    self._found.adopted += 1
                case Recovered.ASLEEP:
                    self._found.asleep += 1
                case Recovered.LOST:
                    self._found.lost += 1

    async def _leftovers(self) -> set[str]:
        """Machines, networks and groups of this data directory, whether or not a row speaks of them."""
        found = {entry.name for entry in self._workshop.data.machines.iterdir()}
        found |= await self._workshop.engine.leftovers()
        if self._workshop.engine.capabilities.network:
            found |= await self._workshop.network.list()
        return found

    async def _sweep(self, orphan: str) -> None:
        log.warning("orphan removed", sandbox=orphan)
        await self._workshop.take_down(orphan)
        self._found.swept += 1
