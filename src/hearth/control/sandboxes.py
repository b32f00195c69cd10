"""Use cases of sandboxes: create, find, list, run commands, sleep, copy, destroy. Every call says for whom."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace

import structlog

from hearth.control.checkpoints import Checkpoints
from hearth.control.creation import NO_EXTRAS, Creation, Extras, expiry, new_sandbox, outcome, sized
from hearth.control.deaths import Deaths
from hearth.control.egress import EgressLog
from hearth.control.endings import Endings
from hearth.control.fleet import Fleet
from hearth.control.forks import Forks, inherit, model_of, specs_of_copies
from hearth.control.image_claims import ImageClaims
from hearth.control.images import Images
from hearth.control.limits import Admission, HostLimits, check_spec
from hearth.control.machine_templates import MachineTemplates
from hearth.control.networking import Networking
from hearth.control.pool import Pool
from hearth.control.reach import within_reach
from hearth.control.removal import Removal
from hearth.control.residents import Residents
from hearth.control.saving import Saving
from hearth.control.shelf import Shelf
from hearth.control.sleep import Sleep
from hearth.control.space import require_space
from hearth.control.templates import Templates
from hearth.control.thermostat import Thermostat
from hearth.control.volumes import Volumes
from hearth.control.wakeable import cannot_wake
from hearth.engine.base import SleepingEngine
from hearth.errors import HearthError, InvalidInput, NotFound
from hearth.guest.client import Guest
from hearth.guest.execution import Execution
from hearth.image.store import Image
from hearth.jobs.bringup import CREATE_KIND, Workshop, sleeping
from hearth.jobs.runner import Runner
from hearth.model import (
    Ending,
    ExitKind,
    Heat,
    Lifetime,
    Sandbox,
    SandboxChanges,
    SandboxSpec,
    SandboxState,
    StepRecord,
    User,
)
from hearth.store.base import FIRST_PAGE, Page, PageRequest, SandboxExists, Store
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

    def __init__(
        self, *, store: Store, images: Images, workshop: Workshop, runner: Runner, limits: HostLimits, egress: EgressLog
    ) -> None:
        self.store = store
        self._images = images
        self.workshop = workshop
        self.admission = Admission(limits=limits, engine=workshop.engine)
        residents, settings = Residents(), workshop.settings
        self.networking = Networking(store=store, workshop=workshop, residents=residents, egress=egress)
        deaths = Deaths(store=store, workshop=workshop, residents=residents)
        self.fleet = Fleet(deaths.note, self._on_halt, deaths.tidy)
        self.templates = Templates(workshop)
        self.pool = Pool(workshop, self.templates, ready=settings.pool_ready, waiting=settings.pool_waiting)
        self.shelf = Shelf(store=store, workshop=workshop, images=images, in_use=self.pool.templates)
        self.volumes = Volumes(store=store, workshop=workshop)
        self.creation = Creation(
            store=store,
            workshop=workshop,
            runner=runner,
            fleet=self.fleet,
            residents=residents,
            images=images,
            templates=self.templates,
            pool=self.pool,
            shelf=self.shelf,
            volumes=self.volumes,
            networking=self.networking,
        )
        self.sleep = Sleep(
            store=store, workshop=workshop, runner=runner, fleet=self.fleet, residents=residents, images=images
        )
        self.forks = Forks(
            store=store,
            workshop=workshop,
            fleet=self.fleet,
            creation=self.creation,
            sleep=self.sleep,
            images=images,
            shelf=self.shelf,
        )
        self.checkpoints = Checkpoints(
            store=store, workshop=workshop, creation=self.creation, forks=self.forks, shelf=self.shelf
        )
        self.machine_templates = MachineTemplates(
            workshop=workshop, images=images, templates=self.templates, pool=self.pool, shelf=self.shelf, limits=limits
        )
        self.image_claims = ImageClaims(store=store, images=images)
        self._saving = Saving(
            store=store,
            workshop=workshop,
            sleep=self.sleep,
            forks=self.forks,
            images=images,
            shelf=self.shelf,
            claims=self.image_claims,
        )
        self._endings = Endings(store=store)
        self._removal = Removal(
            store=store, workshop=workshop, fleet=self.fleet, creation=self.creation, residents=residents
        )

    @property
    def can_sleep(self) -> bool:
        """True when the engine's machines can be paused and stopped."""
        return self.workshop.engine.capabilities.sleep

    def thermostat(self) -> Thermostat:
        """Give what the thermal loop sees and cools these sandboxes with."""
        return Thermostat(
            store=self.store, fleet=self.fleet, sleep=self.sleep, can_sleep=self.can_sleep, expire=self._removal.expire
        )

    async def create(
        self,
        user: User,
        spec: SandboxSpec,
        *,
        from_: str | None = None,
        extras: Extras = NO_EXTRAS,
    ) -> Created:
        """Bring a sandbox up and give it once its agent has answered.

        The same name again gives the existing one while that runs. A caller who leaves does not undo the work; a
        failure does, whole.

        Args:
            from_: a sandbox to fork or a checkpoint to resume; a field of ``spec`` at its default takes the source's.
            extras: what it gets besides; nothing is left of that either, should it not come up.

        Raises:
            InvalidInput: a field of ``spec`` or ``extras`` is not acceptable.
            NotFound: no such image, or no such source.
            Conflict: there is a sandbox of that name which does not run, or the source is of another shape.
            NoSpace: the data directory is nearly full.
            EngineFailed, GuestFailed, TimedOut: the machine did not come up; nothing is left of it.
            InitFailed: a command of ``extras`` did; nothing is left, either.
        """
        self.admission.check(spec, extras.outfit)
        if (known := await self._known(user, spec.name)) is not None:
            return await self._existing(known)
        try:
            await self.volumes.check_wanted(user, extras.volumes)
            make = self._make(user, spec, extras) if from_ is None else self._copy(user, spec, from_, extras)
            return Created(sandbox=await make, new=True)
        except SandboxExists as error:
            return await self._existing(error.existing)

    async def _make(self, user: User, spec: SandboxSpec, extras: Extras) -> Sandbox:
        spec = self.networking.with_policy(spec)
        boot = await self._images.choose(user, spec.image)
        await require_space(self.workshop, self.shelf)
        sandbox = sized(new_sandbox(user, spec, boot.rootfs_id, self.workshop.clock.now()), boot)
        claimed = await self.creation.claim(sandbox, boot)
        if claimed is not None:
            sandbox = replace(sandbox, id=claimed.sandbox_id)
        return await outcome(self.creation.begin(sandbox, boot, claimed=claimed, extras=extras), sandbox)

    async def _copy(self, user: User, spec: SandboxSpec, reference: str, extras: Extras) -> Sandbox:
        self.networking.check(spec)
        try:
            found = await self.get(user, reference)
        except NotFound:
            return await self.checkpoints.resume_as(user, reference, spec, extras)
        sleeping(self.workshop.engine)
        source = await self.creation.settle(found)
        (made,) = await self.forks.fork(user, source, [inherit(spec, model_of(user, source))], extras)
        return made

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
        found = await within_reach(self.store.sandboxes, user, reference)
        structlog.contextvars.bind_contextvars(sandbox=found.id)
        return found

    async def list(self, user: User, *, labels: Mapping[str, str], limit: int, cursor: str | None) -> Page[Sandbox]:
        """Give a page of the user's sandboxes (everybody's for an administrator), oldest first."""
        page = PageRequest(limit=limit, cursor=cursor)
        return await self.store.sandboxes.list(_scope(user), labels=labels, page=page)

    async def count(self) -> int:
        """Count all sandboxes of this host."""
        return await self.store.sandboxes.count(None)

    async def timings(self, user: User, reference: str) -> Sequence[StepRecord]:
        """Tell what each step of the sandbox's creation took."""
        jobs = await self.store.jobs.list(subject=(await self.get(user, reference)).id)
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
        async with self.sleep.awake(await self.creation.settle(await self.get(user, reference))) as guest:
            yield guest

    def heat(self, sandbox: Sandbox) -> Heat:
        """Tell how much of a sandbox is there now."""
        return self.sleep.residents[sandbox.id].heat if self.fleet.member(sandbox.id) is not None else Heat.COLD

    async def stop(self, user: User, reference: str) -> Sandbox:
        """Bring a sandbox to disk, memory and all, and end its process; one that is there already is fine.

        Raises:
            NotFound: no such sandbox.
            Conflict: it does not run, its disk is too full, or the engine's machines do not sleep.
            GuestFailed, NoSpace, EngineFailed, TimedOut: it stays as it was.
        """
        sandbox = await self._sleeper(user, reference)
        await self.sleep.stop(sandbox.id)
        current = await self.store.sandboxes.get(sandbox.id)
        if current.state is not SandboxState.STOPPED:
            raise cannot_wake(current)
        return current

    async def start(self, user: User, reference: str, *, force: bool = False) -> Sandbox:
        """Make a sandbox hot; ``force`` boots from disk what cannot be woken with its memory.

        Raises:
            NotFound: no such sandbox.
            Conflict, SnapshotRefused, EngineFailed, GuestFailed, TimedOut: it did not come up.
        """
        sandbox = await self.creation.settle(await self.get(user, reference))
        return await self.sleep.start(sandbox, force=force)

    async def pause(self, user: User, reference: str) -> Sandbox:
        """Stop a sandbox's CPUs, whoever uses it; doing it twice is fine. Its next use makes them run again.

        Raises as ``stop``.
        """
        sandbox = await self._sleeper(user, reference)
        if not await self.sleep.pause(sandbox.id, idle_only=False) and self.heat(sandbox) is not Heat.WARM:
            raise cannot_wake(await self.store.sandboxes.get(sandbox.id))
        return await self.store.sandboxes.get(sandbox.id)

    async def resume(self, user: User, reference: str) -> Sandbox:
        """Let a paused sandbox's CPUs run again; doing it twice is fine. Raises as ``stop``."""
        sandbox = await self._sleeper(user, reference)
        if sandbox.state is not SandboxState.RUNNING:
            raise cannot_wake(sandbox)
        return await self.sleep.start(sandbox)

    async def update(self, user: User, reference: str, changes: SandboxChanges) -> Sandbox:
        """Change name, labels, lifetime, policy or whether it may sleep, all of it or nothing; wakes nothing.

        A time to live counts from now. Inside, the host name follows a new name at the next start from disk: programs
        that run hold on to the old one anyway.

        Raises:
            NotFound: no such sandbox.
            InvalidInput: names the field.
            HostUnfit: the kernel does not take the policy.
            SandboxExists: the user has another of the new name.
        """
        sandbox = await self.creation.settle(await self.get(user, reference))
        check_spec(changes.apply(sandbox.spec), self.admission.limits)
        if changes.lifetime is not None:
            ttl_s = changes.lifetime.ttl_s
            lifetime = Lifetime(ttl_s=ttl_s, expires_at=expiry(self.workshop.clock.now(), ttl_s))
            changes = replace(changes, lifetime=lifetime)
        return await self.networking.update(sandbox, changes)

    async def fork(self, user: User, reference: str, *, name: str | None = None, count: int = 1) -> Sequence[Sandbox]:
        """Make copies of a living sandbox, memory and disk as they are at one moment, each with its own identity.

        They are named ``name``, or after the source; several get -1, -2 and so on. What the source was given (labels,
        environment, times) they have, too; a time to live begins anew.

        Raises:
            InvalidInput: ``count`` or a name is not acceptable.
            NotFound: no such sandbox.
            Conflict, CopiesFailed, NoSpace, EngineFailed, GuestFailed, TimedOut, SnapshotRefused: as ``Forks.fork``.
        """
        source = await self._sleeper(user, reference)
        specs = specs_of_copies(model_of(user, source), base=f"{source.spec.name}-fork", name=name, count=count)
        return await self.forks.fork(user, source, specs)

    async def save_image(self, user: User, reference: str, name: str) -> Image:
        """Make an image of a sandbox's disk; a running one runs on, a stopped one is not woken.

        Raises NotFound, and as ``Saving.save``.
        """
        return await self._saving.save(user, await self._sleeper(user, reference), name)

    async def ending(self, user: User, reference: str) -> Ending:
        """Tell why a sandbox ended. Raises NotFound when the user has had none such."""
        return await self._endings.find(user, reference)

    async def endings(self, user: User, page: PageRequest = FIRST_PAGE) -> Page[Ending]:
        """Give a page of the user's destroyed sandboxes, the first to end first."""
        return await self._endings.list(user, page)

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
        await self._removal.remove(sandbox, ExitKind.USER)

    async def close(self) -> None:
        """Finish removals, cancel creations, and leave the running machines for the next daemon."""
        await self.creation.close()
        if self.workshop.settings.stop_on_exit:
            await self._stop_all()
        await self._removal.close()
        await self.shelf.close()
        await self.fleet.release()
        if isinstance(self.workshop.engine, SleepingEngine):
            await self.workshop.engine.close()

    async def _stop_all(self) -> None:
        for sandbox_id in self.fleet.ids():
            try:
                await self.sleep.stop(sandbox_id)
            except HearthError as error:
                log.error("not stopped, left running", sandbox=sandbox_id, error=str(error))

    async def _on_halt(self, sandbox_id: str, why: str) -> None:
        await self.sleep.note_halt(sandbox_id, why)

    async def _sleeper(self, user: User, reference: str) -> Sandbox:
        sandbox = await self.get(user, reference)
        sleeping(self.workshop.engine)
        return await self.creation.settle(sandbox)


def _scope(user: User) -> str | None:
    return None if user.admin else user.id
