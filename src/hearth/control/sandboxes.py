"""Use cases of sandboxes: create, find, list, run commands, destroy. Every call says for whom."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta

import structlog

from hearth.control.creation import Creation, outcome
from hearth.control.exit_cause import Death, explain
from hearth.control.fleet import Fleet
from hearth.control.images import Images
from hearth.control.limits import HostLimits, check_spec
from hearth.control.pool import Claimed, Pool
from hearth.control.residents import Residents
from hearth.control.sleep import BOOTABLE, Sleep, cannot_wake
from hearth.control.templates import Templates
from hearth.control.thermostat import Thermostat
from hearth.engine.base import BootFiles, MachineEnd, SleepingEngine
from hearth.errors import Conflict, HearthError, InvalidInput, NoSpace, NotFound
from hearth.guest.client import Guest
from hearth.guest.execution import Execution
from hearth.host.identity import new_sandbox_id
from hearth.jobs.bringup import CREATE_KIND, Workshop
from hearth.jobs.runner import Runner
from hearth.model import Heat, Sandbox, SandboxSpec, SandboxState, StepRecord, User
from hearth.store.base import Page, PageRequest, SandboxExists, Store
from hearth.wire.messages import ExecRequest

log = structlog.get_logger(__name__)

ALIVE = (SandboxState.RUNNING, SandboxState.STOPPED)
"""Its machine runs, or will at the first use."""


@dataclass(frozen=True, kw_only=True)
class Created:
    """What ``create`` answers: the sandbox, and whether this call made it."""

    sandbox: Sandbox
    new: bool


class Sandboxes:
    """The sandboxes of all users on this host."""

    def __init__(self, *, store: Store, images: Images, workshop: Workshop, runner: Runner, limits: HostLimits) -> None:
        self.store = store
        self._images = images
        self.workshop = workshop
        self._limits = limits
        self.fleet = Fleet(self._on_death, self._on_halt)
        residents = Residents()
        self.templates = Templates(workshop)
        settings = workshop.settings
        self.pool = Pool(workshop, self.templates, ready=settings.pool_ready, waiting=settings.pool_waiting)
        self.creation = Creation(
            store=store,
            workshop=workshop,
            runner=runner,
            fleet=self.fleet,
            residents=residents,
            images=images,
            templates=self.templates,
            pool=self.pool,
        )
        self.sleep = Sleep(
            store=store, workshop=workshop, runner=runner, fleet=self.fleet, residents=residents, images=images
        )
        self._removals: dict[str, asyncio.Task[None]] = {}

    @property
    def can_sleep(self) -> bool:
        """True when the engine's machines can be paused and stopped."""
        return self.workshop.engine.capabilities.sleep

    def thermostat(self) -> Thermostat:
        """Give what the thermal loop sees and cools these sandboxes with."""
        return Thermostat(
            store=self.store, fleet=self.fleet, sleep=self.sleep, can_sleep=self.can_sleep, expire=self._expire
        )

    async def create(self, user: User, spec: SandboxSpec) -> Created:
        """Bring a sandbox up and give it once its agent has answered.

        The same name again gives the existing one while that runs. A caller who leaves does not undo the work; a
        failure does, whole.

        Raises:
            InvalidInput: a field of ``spec`` is not acceptable.
            NotFound: no such image.
            Conflict: there is a sandbox of that name which does not run.
            NoSpace: the data directory is nearly full.
            EngineFailed, GuestFailed, TimedOut: the machine did not come up; nothing is left of it.
        """
        check_spec(spec, self._limits)
        if (known := await self._known(user, spec.name)) is not None:
            return await self._existing(known)
        boot = await self._images.boot_files(spec.image)
        await asyncio.to_thread(self._check_space)
        claimed = await self.creation.claim(spec, boot)
        sandbox = self._new(user, spec, boot, claimed)
        creating = self.creation.begin(sandbox, boot, claimed=claimed)
        try:
            return Created(sandbox=await outcome(creating, sandbox), new=True)
        except SandboxExists as error:
            return await self._existing(error.existing)

    async def _known(self, user: User, name: str) -> Sandbox | None:
        """Find the user's own sandbox of that name: the unique index has the last word, this spares the work."""
        try:
            found = await self.store.sandboxes.resolve(user.id, name)
        except NotFound:
            return None
        return found if found.spec.name == name else None

    async def _existing(self, known: Sandbox) -> Created:
        existing = await self.creation.settle(known)
        if existing.state not in ALIVE:
            raise cannot_wake(existing)
        return Created(sandbox=existing, new=False)

    async def get(self, user: User, reference: str) -> Sandbox:
        """Find a sandbox of the user's by id or name.

        Raises:
            NotFound: the user has none such.
        """
        return await self.store.sandboxes.resolve(_scope(user), reference)

    async def list(self, user: User, *, labels: Mapping[str, str], limit: int, cursor: str | None) -> Page[Sandbox]:
        """Give a page of the user's sandboxes (everybody's for an administrator), oldest first."""
        page = PageRequest(limit=limit, cursor=cursor)
        return await self.store.sandboxes.list(_scope(user), labels=labels, page=page)

    async def count(self) -> int:
        """Count all sandboxes of this host."""
        return await self.store.sandboxes.count(None)

    async def timings(self, user: User, reference: str) -> Sequence[StepRecord]:
        """Tell what each step of the sandbox's creation took."""
        sandbox = await self.get(user, reference)
        jobs = await self.store.jobs.list(subject=sandbox.id)
        return [record for job in jobs.items if job.kind == CREATE_KIND for record in job.steps]

    @contextlib.asynccontextmanager
    async def execute(self, user: User, reference: str, request: ExecRequest) -> AsyncIterator[Execution]:
        """Run a command, once the sandbox is there; leaving the context before its end kills its process group.

        Raises:
            InvalidInput: the command is empty.
            NotFound: no such sandbox.
            Conflict: it does not run.
            StartFailed: the guest could not start the command; ``details`` are the guest's words.
            GuestFailed: the guest misbehaved or went away.
        """
        if not request.argv or not request.argv[0]:
            raise InvalidInput(
                "the command is empty",
                details="cmd has no program",
                resolution='give a program and its arguments, such as ["uname", "-a"]',
                field="cmd",
            )
        async with self.awake(user, reference) as guest, guest.start(request) as execution:
            yield execution

    @contextlib.asynccontextmanager
    async def awake(self, user: User, reference: str) -> AsyncIterator[Guest]:
        """Give the agent of a sandbox, woken if need be, which stays hot inside the context.

        Raises:
            NotFound: no such sandbox.
            Conflict: it cannot be woken.
            SnapshotRefused, EngineFailed, GuestFailed, TimedOut: it did not come up.
        """
        sandbox = await self.creation.settle(await self.get(user, reference))
        async with self.sleep.awake(sandbox) as guest:
            yield guest

    async def destroy(self, user: User, reference: str) -> None:
        """End a sandbox and remove everything of it. A creation under way is cancelled first.

        Raises:
            NotFound: no such sandbox.
        """
        sandbox = await self.get(user, reference)
        if await self.creation.cancel(sandbox.id):
            try:
                sandbox = await self.get(user, sandbox.id)
            except NotFound:
                return
        await asyncio.shield(self._removal(sandbox))

    async def close(self) -> None:
        """Finish removals, cancel creations, and leave the running machines for the next daemon."""
        await self.creation.close()
        if self.workshop.settings.stop_on_exit:
            await self._stop_all()
        await asyncio.gather(*self._removals.values(), return_exceptions=True)
        await self.fleet.release()
        if isinstance(self.workshop.engine, SleepingEngine):
            await self.workshop.engine.close()

    def _removal(self, sandbox: Sandbox) -> asyncio.Task[None]:
        """Begin to remove a sandbox, or join who does so."""
        removal = self._removals.get(sandbox.id)
        if removal is None:
            removal = asyncio.create_task(self._remove(sandbox), name=f"destroy {sandbox.id}")
            self._removals[sandbox.id] = removal
            removal.add_done_callback(lambda _: self._removals.pop(sandbox.id, None))
        return removal

    async def _expire(self, sandbox: Sandbox) -> None:
        log.info("time to live is over", sandbox=sandbox.id, name=sandbox.spec.name)
        await asyncio.shield(self._removal(sandbox))

    async def _stop_all(self) -> None:
        for sandbox_id in self.fleet.ids():
            try:
                await self.sleep.stop(sandbox_id)
            except HearthError as error:
                log.error("not stopped, left running", sandbox=sandbox_id, error=str(error))

    async def _remove(self, sandbox: Sandbox) -> None:
        expected = (*ALIVE, *BOOTABLE, SandboxState.DESTROYING)
        async with self.sleep.residents[sandbox.id].lock:
            await self.store.sandboxes.transition(sandbox.id, expected, SandboxState.DESTROYING)
            await self.fleet.end(sandbox.id)
            await self.creation.forget(sandbox)
        log.info("sandbox destroyed", sandbox=sandbox.id, name=sandbox.spec.name)

    async def _on_halt(self, sandbox_id: str, why: str) -> None:
        await self.sleep.note_halt(sandbox_id, why)

    async def _on_death(self, sandbox_id: str, end: MachineEnd) -> None:
        self.sleep.residents[sandbox_id].heat = Heat.COLD
        cause = explain(Death(at=self.workshop.clock.now(), **asdict(end)))
        try:
            await self.store.sandboxes.transition(
                sandbox_id, (SandboxState.RUNNING,), SandboxState.FAILED, error=cause.detail, exit_cause=cause
            )
            log.warning("sandbox failed", sandbox=sandbox_id, kind=cause.kind, detail=cause.detail)
            await self.workshop.put_out(sandbox_id)
        except (NotFound, Conflict):
            log.debug("its end is no news: it is being destroyed", sandbox=sandbox_id)
        except (HearthError, OSError) as error:
            log.error("the end of a machine was not tidied up", sandbox=sandbox_id, error=str(error))

    def _new(self, user: User, spec: SandboxSpec, boot: BootFiles, claimed: Claimed | None) -> Sandbox:
        now = self.workshop.clock.now()
        return Sandbox(
            id=claimed.sandbox_id if claimed is not None else new_sandbox_id(),
            owner=user.id,
            spec=spec,
            state=SandboxState.CREATING,
            created_at=now,
            image_id=boot.rootfs_id,
            expires_at=now + timedelta(seconds=spec.ttl_s) if spec.ttl_s is not None else None,
        )

    def _check_space(self) -> None:
        free_mib = shutil.disk_usage(self.workshop.data.root).free // (1024 * 1024)
        wanted_mib = self.workshop.settings.min_free_mib
        if free_mib < wanted_mib:
            raise NoSpace(
                "the data directory is nearly full",
                details=f"{self.workshop.data.root} has {free_mib} MiB left, a new sandbox wants {wanted_mib} MiB",
                resolution="destroy sandboxes, free space, or choose another HEARTH_DATA",
            )


def _scope(user: User) -> str | None:
    return None if user.admin else user.id
