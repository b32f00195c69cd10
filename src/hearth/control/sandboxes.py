"""Use cases of sandboxes: create, find, list, run commands, destroy. Every call says for whom."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace

import structlog

from hearth.control.fleet import Fleet, Member
from hearth.control.images import Images
from hearth.control.limits import HostLimits, check_spec
from hearth.engine.base import BootFiles
from hearth.errors import Cancelled, Conflict, HearthError, InvalidInput, NoSpace, NotFound
from hearth.guest.client import Guest
from hearth.guest.execution import Execution
from hearth.host.identity import new_sandbox_id
from hearth.host.waiting import until_done
from hearth.jobs.bringup import KIND, Bringup, Order, Subject, Workshop
from hearth.jobs.runner import Runner
from hearth.model import Sandbox, SandboxSpec, SandboxState, StepRecord, User
from hearth.store.base import Page, PageRequest, SandboxExists, Store
from hearth.wire.messages import ExecRequest

log = structlog.get_logger(__name__)

ENDED = (SandboxState.FAILED, SandboxState.LOST)


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
        self.runner = runner
        self._limits = limits
        self.fleet = Fleet(self._on_death)
        self._adopting = asyncio.Lock()
        self._creations: dict[str, asyncio.Task[Sandbox]] = {}
        self._removals: dict[str, asyncio.Task[None]] = {}

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
        boot = await self._images.boot_files(spec.image)
        sandbox = Sandbox(
            id=new_sandbox_id(),
            owner=user.id,
            spec=spec,
            state=SandboxState.CREATING,
            created_at=self.workshop.clock.now(),
        )
        await asyncio.to_thread(self._check_space)
        # Known before its row is: whoever finds the row finds the work behind it, too.
        task = asyncio.create_task(self._create(sandbox, boot), name=f"create {sandbox.id}")
        self._creations[sandbox.id] = task
        task.add_done_callback(lambda _: self._creations.pop(sandbox.id, None))
        try:
            return Created(sandbox=await _outcome(task, sandbox), new=True)
        except SandboxExists as error:
            existing = await self._settled(error.existing)
        if existing.state is not SandboxState.RUNNING:
            raise _not_running(existing)
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
        return [record for job in jobs.items if job.kind == KIND for record in job.steps]

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
        sandbox = await self._settled(await self.get(user, reference))
        if sandbox.state is not SandboxState.RUNNING:
            raise _not_running(sandbox)
        async with (await self._guest(sandbox)).start(request) as execution:
            yield execution

    async def destroy(self, user: User, reference: str) -> None:
        """End a sandbox and remove everything of it. A creation under way is cancelled first.

        Raises:
            NotFound: no such sandbox.
        """
        sandbox = await self.get(user, reference)
        if creation := self._creations.get(sandbox.id):
            creation.cancel()
            await asyncio.wait([creation])
            try:
                sandbox = await self.get(user, sandbox.id)
            except NotFound:
                return
        removal = self._removals.get(sandbox.id)
        if removal is None:
            removal = asyncio.create_task(self._remove(sandbox), name=f"destroy {sandbox.id}")
            self._removals[sandbox.id] = removal
            removal.add_done_callback(lambda _: self._removals.pop(sandbox.id, None))
        await asyncio.shield(removal)

    async def close(self) -> None:
        """Finish removals, cancel creations, and leave the running machines for the next daemon."""
        for creation in list(self._creations.values()):
            creation.cancel()
        await asyncio.gather(*self._creations.values(), *self._removals.values(), return_exceptions=True)
        await self.fleet.release()

    async def adopt(self, sandbox: Sandbox) -> bool:
        """Take over the machine that an earlier daemon left running; False when there is none.

        Raises:
            EngineFailed: there is one that does not answer now.
        """
        machine = await self.workshop.engine.adopt(self.workshop.place(sandbox.id))
        if machine is None:
            return False
        guest = Guest(machine.dialer, self.workshop.agent_token(sandbox.id))
        self.fleet.add(sandbox.id, Member(machine=machine, guest=guest))
        log.info("machine adopted", sandbox=sandbox.id)
        return True

    async def forget(self, sandbox: Sandbox) -> None:
        """Remove what a sandbox in state creating or destroying has, then its row: for recovery."""
        await self.workshop.take_down(sandbox.id)
        await self.store.sandboxes.delete(sandbox.id, (SandboxState.CREATING, SandboxState.DESTROYING))

    async def _create(self, sandbox: Sandbox, boot: BootFiles) -> Sandbox:
        bringup = Bringup(self.workshop, Order(sandbox=sandbox, boot=boot))
        plan = bringup.plan()
        try:
            await self.store.sandboxes.create(sandbox)
            job = await self.runner.submit(plan, sandbox.id, Subject(sandbox_id=sandbox.id))
            await self.runner.run(job.id, plan)
            running = await self.store.sandboxes.transition(sandbox.id, (SandboxState.CREATING,), SandboxState.RUNNING)
        except SandboxExists:
            raise
        except BaseException as error:
            if isinstance(error, HearthError):
                log.warning("sandbox not created", sandbox=sandbox.id, error=str(error))
            abandoning = asyncio.create_task(self._abandon(sandbox, bringup), name=f"abandon {sandbox.id}")
            await until_done(abandoning)
            abandoning.result()
            raise
        machine, guest = bringup.hand_over()
        self.fleet.add(sandbox.id, Member(machine=machine, guest=guest))
        return running

    async def _abandon(self, sandbox: Sandbox, bringup: Bringup) -> None:
        await bringup.discard()
        with contextlib.suppress(NotFound):  # its row was never written
            states = (SandboxState.CREATING, SandboxState.RUNNING)
            await self.store.sandboxes.transition(sandbox.id, states, SandboxState.DESTROYING)
            await self.forget(sandbox)

    async def _guest(self, sandbox: Sandbox) -> Guest:
        """Give the way to a running sandbox's agent; one that did not answer at the daemon's start is tried again."""
        async with self._adopting:
            guest = self.fleet.guest(sandbox.id)
            if guest is None and await self.adopt(sandbox):
                guest = self.fleet.guest(sandbox.id)
        if guest is None:
            raise _not_running(replace(sandbox, state=SandboxState.LOST))
        return guest

    async def _settled(self, sandbox: Sandbox) -> Sandbox:
        """Wait for a creation under way and give what came of it."""
        creation = self._creations.get(sandbox.id)
        return await _outcome(creation, sandbox) if creation is not None else sandbox

    async def _remove(self, sandbox: Sandbox) -> None:
        expected = (SandboxState.RUNNING, *ENDED, SandboxState.DESTROYING)
        await self.store.sandboxes.transition(sandbox.id, expected, SandboxState.DESTROYING)
        await self.fleet.end(sandbox.id)
        await self.forget(sandbox)
        log.info("sandbox destroyed", sandbox=sandbox.id, name=sandbox.spec.name)

    async def _on_death(self, sandbox_id: str, cause: str) -> None:
        try:
            await self.store.sandboxes.transition(sandbox_id, (SandboxState.RUNNING,), SandboxState.FAILED, error=cause)
            await self.workshop.put_out(sandbox_id)
        except (NotFound, Conflict):
            log.debug("its end is no news: it is being destroyed", sandbox=sandbox_id)
        except (HearthError, OSError) as error:
            log.error("the end of a machine was not tidied up", sandbox=sandbox_id, error=str(error))

    def _check_space(self) -> None:
        free_mib = shutil.disk_usage(self.workshop.data.root).free // (1024 * 1024)
        wanted_mib = self.workshop.settings.min_free_mib
        if free_mib < wanted_mib:
            raise NoSpace(
                "the data directory is nearly full",
                details=f"{self.workshop.data.root} has {free_mib} MiB left, a new sandbox wants {wanted_mib} MiB",
                resolution="destroy sandboxes, free space, or choose another HEARTH_DATA",
            )


async def _outcome(creation: asyncio.Task[Sandbox], sandbox: Sandbox) -> Sandbox:
    """Wait for a creation without owning it; its cancellation by a destroy is an answer, ours passes."""
    await asyncio.wait([creation])
    if creation.cancelled():
        raise Cancelled("the sandbox was destroyed while it was created", details=sandbox.id)
    return creation.result()


def _not_running(sandbox: Sandbox) -> Conflict:
    ended = sandbox.state in ENDED
    return Conflict(
        "the sandbox does not run",
        details=f"{sandbox.spec.name} is {sandbox.state}" + (f": {sandbox.error}" if sandbox.error else ""),
        resolution="destroy it and create another" if ended else "wait a moment and try again",
    )


def _scope(user: User) -> str | None:
    return None if user.admin else user.id
