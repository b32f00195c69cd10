"""Ends sandboxes and removes everything of them; each once, whoever asks, and to its end, whoever leaves."""

from __future__ import annotations

import asyncio

import structlog

from hearth.control.capturing import run_on
from hearth.control.creation import Creation
from hearth.control.endings import cause_of_removal
from hearth.control.fleet import Fleet
from hearth.control.heat import InUse
from hearth.control.residents import Residents
from hearth.control.wakeable import BOOTABLE
from hearth.errors import Conflict, HearthError, NoSpace, NotFound
from hearth.jobs.bringup import Workshop, awake
from hearth.model import ExitKind, Heat, Sandbox, SandboxState
from hearth.store.base import Store

log = structlog.get_logger(__name__)

PARTING_TIMEOUT_S = 20.0
"""For a guest to write out what is in its memory; one that does not answer must not stay for ever."""
REMOVABLE = (SandboxState.RUNNING, SandboxState.STOPPED, *BOOTABLE, SandboxState.DESTROYING)


class Removal:
    """The removals under way, by sandbox id."""

    def __init__(
        self, *, store: Store, workshop: Workshop, fleet: Fleet, creation: Creation, residents: Residents
    ) -> None:
        self._store = store
        self._clock = workshop.clock
        self._volumes = workshop.volumes
        self._fleet = fleet
        self._creation = creation
        self._residents = residents
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def remove(self, sandbox: Sandbox, kind: ExitKind) -> None:
        """Remove a sandbox, or join who does so; a caller who leaves does not stop it.

        Args:
            kind: why, if its machine has not ended by itself before.

        Raises:
            NotFound: it is gone.
            Conflict: its creation is under way.
        """
        task = self._tasks.get(sandbox.id)
        if task is None:
            task = asyncio.create_task(self._remove(sandbox, kind), name=f"destroy {sandbox.id}")
            self._tasks[sandbox.id] = task
            task.add_done_callback(lambda _: self._tasks.pop(sandbox.id, None))
        await asyncio.shield(task)

    async def expire(self, sandbox: Sandbox) -> None:
        """Destroy a sandbox whose time to live is over.

        Raises:
            InUse: it was given more time meanwhile.
            NotFound: it is gone.
        """
        # Its row says running a moment before its machine is with us.
        await self._creation.settle(sandbox)
        async with self._residents.look_at(sandbox.id).lock:
            current = await self._store.sandboxes.get(sandbox.id)
        if current.expires_at is None or current.expires_at > self._clock.now():
            raise InUse("the sandbox was given more time", details=sandbox.id)
        log.info("time to live is over", sandbox=sandbox.id, name=current.spec.name)
        await self.remove(current, ExitKind.TTL)

    async def close(self) -> None:
        """Wait for all of them."""
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def _remove(self, sandbox: Sandbox, kind: ExitKind) -> None:
        async with self._residents[sandbox.id].lock:
            try:
                sandbox = await self._condemn(sandbox, kind)
            except NotFound:
                self._residents.forget(sandbox.id)
                raise
            except NoSpace:
                # A full disk has no room even for the word that it goes: its own files make some.
                log.warning("removing before it is said: the disk is full", sandbox=sandbox.id)
                await self._part_from_volumes(sandbox.id)
                await self._fleet.end(sandbox.id)
                await self._creation.clear(sandbox.id)
                sandbox = await self._condemn(sandbox, kind)
            await self._part_from_volumes(sandbox.id)
            await self._fleet.end(sandbox.id)
            await self._creation.forget(sandbox)
        log.info("sandbox destroyed", sandbox=sandbox.id, name=sandbox.spec.name, reason=kind)

    async def _part_from_volumes(self, sandbox_id: str) -> None:
        """Have the guest write out what its volumes are to hold; however it answers, its time is over."""
        member = self._fleet.member(sandbox_id)
        placements = await self._volumes.placements(sandbox_id)
        resident = self._residents[sandbox_id]
        if member is None or resident.halted is not None or all(placement.read_only for placement in placements):
            return
        try:
            async with asyncio.timeout(PARTING_TIMEOUT_S):
                if resident.heat is Heat.WARM:
                    await run_on(member.guest, awake(member.machine))
                try:
                    await member.guest.settle_volumes([])
                except Conflict:  # in use there: what is frozen is written out, too
                    await member.guest.freeze()
        except (HearthError, TimeoutError) as error:
            log.warning("volumes were not unmounted", sandbox=sandbox_id, error=str(error))

    async def _condemn(self, sandbox: Sandbox, kind: ExitKind) -> Sandbox:
        """Say in its row that it goes, and why; if its machine dies at this moment, that is the reason."""
        while True:
            cause = cause_of_removal(sandbox, kind, self._clock.now())
            expected = (sandbox.state,) if sandbox.state in REMOVABLE else REMOVABLE
            try:
                return await self._store.sandboxes.transition(
                    sandbox.id, expected, SandboxState.DESTROYING, error=sandbox.error, exit_cause=cause
                )
            except Conflict:
                current = await self._store.sandboxes.get(sandbox.id)
                if current.state is sandbox.state or current.state not in REMOVABLE:
                    raise
                sandbox = current
