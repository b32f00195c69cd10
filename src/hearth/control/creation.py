"""Brings new sandboxes up: cloned from a template where the engine's machines sleep, booted where they do not."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import structlog

from hearth.control.endings import ending_of
from hearth.control.fleet import Fleet, Member
from hearth.control.images import Images
from hearth.control.networking import Networking
from hearth.control.pool import Claimed, Pool
from hearth.control.residents import Residents
from hearth.control.shelf import Shelf
from hearth.control.templates import Shape, Templates
from hearth.control.volumes import NO_VOLUMES, Volumes, WantedVolumes
from hearth.engine.base import BootFiles
from hearth.errors import Cancelled, EngineFailed, GuestFailed, HearthError, InvalidInput, NotFound, TimedOut
from hearth.host.identity import new_sandbox_id
from hearth.host.waiting import until_done
from hearth.jobs.bringup import Bringup, Order, Subject, Workshop
from hearth.jobs.runner import Runner
from hearth.model import Heat, Sandbox, SandboxSpec, SandboxState, User, VolumePlacement
from hearth.outfit import NO_OUTFIT, Outfit
from hearth.quota import mebibytes
from hearth.store.base import SandboxExists, Store
from hearth.store.quota_store import amounts_of_sandbox

log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class Source:
    """What a new sandbox starts as: a copy of ``snapshot``, whose agent knows the token of sandbox ``known_as``."""

    snapshot: str
    known_as: str | None


@dataclass(frozen=True, kw_only=True)
class Extras:
    """What a new sandbox gets besides its machine."""

    volumes: WantedVolumes = NO_VOLUMES
    outfit: Outfit = NO_OUTFIT

    def added_to(self, order: Order, placements: Sequence[VolumePlacement]) -> Order:
        """Give an order with all of it, the volumes where they are placed."""
        return replace(order, placements=placements, known=self.volumes.inherited, outfit=self.outfit)


NO_EXTRAS = Extras()


class Creation:
    """The creations under way, by sandbox id; each is done whole or leaves nothing, whoever waits for it."""

    def __init__(
        self,
        *,
        store: Store,
        workshop: Workshop,
        runner: Runner,
        fleet: Fleet,
        residents: Residents,
        images: Images,
        templates: Templates,
        pool: Pool,
        shelf: Shelf,
        volumes: Volumes,
        networking: Networking,
    ) -> None:
        self._store = store
        self._workshop = workshop
        self._runner = runner
        self._fleet = fleet
        self._residents = residents
        self._images = images
        self._templates = templates
        self._pool = pool
        self._shelf = shelf
        self._volumes = volumes
        self._networking = networking
        self._tasks: dict[str, asyncio.Task[Sandbox]] = {}
        self._untouched: dict[str, Claimed] = {}
        """Clones that were given to a creation which has not begun yet."""
        self._discards: dict[str, asyncio.Task[None]] = {}
        """Of such clones whose creation was cancelled."""

    async def claim(self, sandbox: Sandbox, boot: BootFiles) -> Claimed | None:
        """Take a clone that was made ahead, if there is one; the new sandbox must bear its id.

        Raises:
            QuotaExceeded: its owner may not have it; no clone is used up for nothing.
        """
        await self._store.quotas.check(sandbox.owner, amounts_of_sandbox(sandbox))
        if not self._workshop.engine.capabilities.sleep:
            return None
        shape = Shape(boot=boot, cpus=sandbox.spec.cpus, memory_mib=sandbox.spec.memory_mib)
        return self._pool.claim(shape, await self._templates.identify(shape))

    def begin(
        self,
        sandbox: Sandbox,
        boot: BootFiles,
        source: Source | None = None,
        claimed: Claimed | None = None,
        extras: Extras | None = None,
    ) -> asyncio.Task[Sandbox]:
        """Start to create a sandbox; known before its row is: whoever finds the row finds the work behind it, too.

        Args:
            source: what to copy; the caller holds its snapshot now, from here on the creation does. None for a machine
                of its own, which is a clone of its shape's template.
            claimed: from ``claim``, with the sandbox's id; whatever comes of it, it is used up.
            extras: what it gets besides; should that fail, nothing is left of it.
        """
        held = contextlib.ExitStack()
        if source is not None:
            held.enter_context(self._shelf.pin(source.snapshot))
        if claimed is not None:
            # A template made anew has the same id and another disk: under this clone it must stay the one it is.
            held.enter_context(self._shelf.pin(claimed.template_id))
            self._untouched[sandbox.id] = claimed
        work = self._create(sandbox, boot, source, claimed, extras or NO_EXTRAS)
        task = asyncio.create_task(work, name=f"create {sandbox.id}")
        self._tasks[sandbox.id] = task

        def ended(_: object) -> None:
            self._tasks.pop(sandbox.id, None)
            left = self._untouched.pop(sandbox.id, None)
            if left is None:
                held.close()
            else:
                self._discard(left, held)

        task.add_done_callback(ended)
        return task

    def _discard(self, claimed: Claimed, held: contextlib.ExitStack) -> None:
        """Remove a clone whose creation was cancelled before its first step, which would have seen to that."""
        name = f"discard {claimed.sandbox_id}"
        task = asyncio.create_task(self._pool.discard(claimed), name=name)
        self._discards[claimed.sandbox_id] = task

        def ended(done: asyncio.Task[None]) -> None:
            self._discards.pop(claimed.sandbox_id, None)
            held.close()
            if not done.cancelled() and (error := done.exception()) is not None:
                log.error("clone made ahead not removed", sandbox=claimed.sandbox_id, error=str(error))

        task.add_done_callback(ended)

    async def settle(self, sandbox: Sandbox) -> Sandbox:
        """Wait for a creation under way and give what came of it."""
        task = self._tasks.get(sandbox.id)
        return await outcome(task, sandbox) if task is not None else sandbox

    async def cancel(self, sandbox_id: str) -> bool:
        """Stop a creation under way and wait until nothing is left of it; False when there is none."""
        task = self._tasks.get(sandbox_id)
        if task is None:
            return False
        task.cancel()
        await asyncio.wait([task])
        if (discard := self._discards.get(sandbox_id)) is not None:
            await asyncio.wait([discard])
        return True

    async def close(self) -> None:
        """Cancel everything under way."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*self._discards.values(), return_exceptions=True)
        await self._templates.close()

    async def clear(self, sandbox_id: str) -> None:
        """Remove a sandbox's machine, disk and memory; its row stays."""
        await self._workshop.take_down(sandbox_id)

    async def forget(self, sandbox: Sandbox) -> None:
        """Remove what a sandbox in state creating or destroying has, then its row: for recovery, too.

        Why it ended, where its row knows that, is remembered first.
        """
        await self._workshop.take_down(sandbox.id)
        if sandbox.exit_cause is not None:
            ending = ending_of(sandbox, sandbox.exit_cause, self._workshop.clock.now())
            await self._store.endings.record(ending)
        await self._store.sandboxes.delete(sandbox.id, (SandboxState.CREATING, SandboxState.DESTROYING))
        self._residents.forget(sandbox.id)
        self._networking.forget(sandbox.id)
        self._shelf.tidy()

    async def _create(
        self,
        sandbox: Sandbox,
        boot: BootFiles,
        source: Source | None,
        claimed: Claimed | None,
        extras: Extras,
    ) -> Sandbox:
        bringup: Bringup | None = None
        volumes = extras.volumes
        self._untouched.pop(sandbox.id, None)
        try:
            await self._store.sandboxes.create(sandbox)
            placements = await self._volumes.provide(sandbox, volumes) if volumes else ()
            async with self._starting_point(sandbox, boot, source) as source:
                if source is not None:
                    sandbox = await self._store.sandboxes.set_origin(sandbox.id, source.snapshot)
            if claimed is not None:
                order = extras.added_to(self._order(sandbox, boot, source, claimed), placements)
                bringup = await self._bring_up_claimed(order)
                if bringup is None and volumes:
                    placements = await self._volumes.provide(sandbox, volumes)  # they went with the clone
            if bringup is None:
                order = extras.added_to(self._order(sandbox, boot, source, None), placements)
                bringup = Bringup(self._workshop, order)
                await self._run(bringup, sandbox)
            running = await self._store.sandboxes.transition(sandbox.id, (SandboxState.CREATING,), SandboxState.RUNNING)
            await self._volumes.placing.keep(placements)
        except SandboxExists:
            if claimed is not None:
                await asyncio.shield(self._pool.discard(claimed))
            raise
        except BaseException as error:
            if isinstance(error, HearthError):
                log.warning("sandbox not created", sandbox=sandbox.id, error=str(error))
            if claimed is not None:
                await asyncio.shield(self._pool.discard(claimed))
            abandoning = asyncio.create_task(self._abandon(sandbox, bringup), name=f"abandon {sandbox.id}")
            await until_done(abandoning)
            abandoning.result()
            raise
        up = bringup.hand_over()
        self._fleet.add(sandbox.id, Member(machine=up.machine, spec=up.spec, guest=up.guest))
        resident = self._residents[sandbox.id]
        resident.heat = Heat.HOT
        resident.touch()
        return running

    async def _bring_up_claimed(self, order: Order) -> Bringup | None:
        """Bring up a clone that was made ahead; None where it does not work: nothing is left of it then."""
        bringup = Bringup(self._workshop, order)
        try:
            await self._run(bringup, order.sandbox)
        except (EngineFailed, GuestFailed, TimedOut) as error:
            log.warning("clone made ahead did not work", sandbox=order.sandbox.id, error=str(error))
            await self._workshop.take_down(order.sandbox.id)
            return None
        except BaseException:
            await asyncio.shield(bringup.discard())
            raise
        return bringup

    async def _run(self, bringup: Bringup, sandbox: Sandbox) -> None:
        plan = bringup.creation()
        job = await self._runner.submit(plan, sandbox.id, Subject(sandbox_id=sandbox.id), owner=sandbox.owner)
        await self._runner.run(job.id, plan)

    @contextlib.asynccontextmanager
    async def _starting_point(
        self, sandbox: Sandbox, boot: BootFiles, source: Source | None
    ) -> AsyncIterator[Source | None]:
        """Find or make the template, unless there is a source, and hold it until the row says who needs it.

        None where the engine knows no templates or this one could not be made: then it boots.
        """
        if source is not None or not self._workshop.engine.capabilities.sleep:
            yield source
            return
        shape = Shape(boot=boot, cpus=sandbox.spec.cpus, memory_mib=sandbox.spec.memory_mib)
        async with contextlib.AsyncExitStack() as held:
            try:
                template_id, expected = await self._templates.identify(shape), None
                while template_id != expected:  # a damaged one gives way to another
                    expected = template_id
                    await held.enter_async_context(self._shelf.hold(expected))
                    template_id = await self._templates.ensure(shape)
                    if template_id != expected:
                        self._pool.give_up(expected)
                source = Source(snapshot=template_id, known_as=None)
            except HearthError as error:
                log.warning("no template, booting instead", sandbox=sandbox.id, error=str(error))
            yield source

    def _order(self, sandbox: Sandbox, boot: BootFiles, source: Source | None, claimed: Claimed | None) -> Order:
        order = Order(sandbox=sandbox, boot=boot, reserve=claimed.reserve if claimed is not None else None)
        if source is None:
            return order
        return replace(order, memory=self._workshop.data.snapshot(source.snapshot), known_as=source.known_as)

    async def _abandon(self, sandbox: Sandbox, bringup: Bringup | None) -> None:
        if bringup is not None:
            await bringup.discard()
        with contextlib.suppress(NotFound):  # its row was never written
            states = (SandboxState.CREATING, SandboxState.RUNNING)
            await self._store.sandboxes.transition(sandbox.id, states, SandboxState.DESTROYING)
            await self.forget(sandbox)


async def outcome(creation: asyncio.Task[Sandbox], sandbox: Sandbox) -> Sandbox:
    """Wait for a creation without owning it; its cancellation by a destroy is an answer, ours passes."""
    await asyncio.wait([creation])
    if creation.cancelled():
        raise Cancelled("the sandbox was destroyed while it was created", details=sandbox.id)
    return creation.result()


def new_sandbox(user: User, spec: SandboxSpec, image_id: str, now: datetime, *, parent: str | None = None) -> Sandbox:
    """Give the row of a sandbox that is about to be created, but for the size of its disk."""
    return Sandbox(
        id=new_sandbox_id(),
        owner=user.id,
        spec=spec,
        state=SandboxState.CREATING,
        created_at=now,
        image_id=image_id,
        parent=parent,
        expires_at=expiry(now, spec.ttl_s),
    )


def sized(sandbox: Sandbox, boot: BootFiles) -> Sandbox:
    """Give the row with its disk's size, which is that of its root file system unless its spec says more.

    Raises:
        InvalidInput: its spec says less.
    """
    least, wanted = mebibytes(boot.rootfs.stat().st_size), sandbox.spec.disk_mib
    if wanted is not None and wanted < least:
        raise InvalidInput(
            "invalid disk_size_mb",
            details=f"disk_size_mb is {wanted} MiB; what the sandbox starts from has {least}",
            resolution=f"use {least} or more, or leave it out",
            field="disk_size_mb",
        )
    return replace(sandbox, disk_mib=wanted or least)


def expiry(now: datetime, ttl_s: int | None) -> datetime | None:
    """Tell when a time to live that begins now is over; None without one."""
    return None if ttl_s is None else now + timedelta(seconds=ttl_s)
