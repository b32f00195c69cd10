"""Moves sandboxes between hot, warm and cold: pause, stop to disk, and wake whatever somebody wants to use.

A stopped sandbox is its disk and, in ``snapshots/stop-<id>``, its memory. That memory is used up by the first
instruction after a wake; where it is missing, used up or refused the disk is what counts.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

import structlog

from hearth.control.capturing import run_on, take, turn_of
from hearth.control.exit_cause import ended_by
from hearth.control.fleet import Fleet, Member
from hearth.control.images import Images
from hearth.control.measuring import waking_of
from hearth.control.residents import Resident, Residents
from hearth.control.space import require_room_to_run
from hearth.control.wakeable import BOOTABLE, cannot_wake, given_up
from hearth.engine.base import Machine, RunState, SleepingMachine, SnapshotRefused
from hearth.engine.budget import Turn
from hearth.engine.snapshot import consume, discard, is_consumed, load, verify
from hearth.errors import Conflict, HearthError, NotFound
from hearth.guest.client import Guest
from hearth.host.threads import on_own_thread
from hearth.host.waiting import until_done
from hearth.jobs.bringup import Bringup, BroughtUp, Order, Subject, Workshop, awake, machine_spec
from hearth.jobs.networks import adopt
from hearth.jobs.runner import Runner
from hearth.model import ExitKind, Heat, Sandbox, SandboxState
from hearth.store.base import Store

log = structlog.get_logger(__name__)

MAX_FAILED_STARTS = 3
"""A memory that could not be started from so often is left alone until somebody forces a boot from disk."""
LOST = "its VMM was gone when the daemon started"
DISK_GONE = "its disk was gone when the daemon started: it is not on this host, or not in the backup that was restored"


class Recovered(StrEnum):
    """What a new daemon found of a sandbox."""

    ADOPTED = "adopted"
    ASLEEP = "asleep"
    LOST = "lost"


@dataclass(frozen=True, kw_only=True)
class Stopped:
    """What going to sleep took: the guest's CPUs stood still for ``paused_s`` until the memory was safe on disk."""

    sandbox: Sandbox
    paused_s: float
    written_bytes: int


class Sleep:
    """The one place where a sandbox's heat changes."""

    def __init__(
        self, *, store: Store, workshop: Workshop, runner: Runner, fleet: Fleet, residents: Residents, images: Images
    ) -> None:
        self._store = store
        self._workshop = workshop
        self._runner = runner
        self._fleet = fleet
        self._images = images
        self._unanswered: set[str] = set()
        """Sandboxes that may have a VMM which this daemon has not got hold of."""
        self.residents = residents

    @contextlib.asynccontextmanager
    async def awake(self, sandbox: Sandbox) -> AsyncIterator[Guest]:
        """Give the agent of a sandbox that is hot and stays so inside the context; wake it first if need be.

        Any number of callers may come at once: one wakes it, the others wait for that.

        Raises:
            NotFound: it is gone.
            Conflict: it cannot be woken; the error says why and what to do.
            SnapshotRefused: its memory is damaged or does not fit this host any more.
            EngineFailed, GuestFailed, TimedOut: it did not come up.
        """
        resident = self.residents[sandbox.id]
        with resident.use():
            if not resident.settled or resident.perhaps_frozen:
                await self.ensure_hot(sandbox)
            member = self._fleet.member(sandbox.id)
            if member is None:  # it has ended, or is being destroyed, since it was hot
                current = await self._store.sandboxes.get(sandbox.id)
                lost = current.state is SandboxState.RUNNING
                raise cannot_wake(replace(current, state=SandboxState.LOST) if lost else current)
            yield member.guest

    async def ensure_hot(self, sandbox: Sandbox, *, force: bool = False) -> None:
        """Make a sandbox hot; one that is hot is fine. ``force`` boots from disk what cannot be woken with its memory.

        Raises:
            Conflict, SnapshotRefused, EngineFailed, GuestFailed, TimedOut: as ``awake`` does.
        """
        resident = self.residents[sandbox.id]
        wakes = resident.wakes
        async with resident.lock:
            if resident.heat is Heat.HOT and not resident.perhaps_frozen:
                return
            if resident.wakes != wakes and resident.wake_error is not None and not force:
                raise resident.wake_error  # one attempt for all who waited for it
            wake = waking_of(resident.heat, self._attempt(sandbox.id, resident, force=force))
            waking = asyncio.create_task(wake, name=f"wake {sandbox.id}")
            await until_done(waking)
            waking.result()
            resident.touch()

    async def pause(self, sandbox_id: str, *, idle_only: bool = True) -> bool:
        """Stop the CPUs of a hot sandbox; False when it is in use or not hot (any more).

        Raises:
            Conflict: the engine's machines do not sleep.
            EngineFailed, TimedOut: the VMM did not obey.
        """
        resident = self.residents.look_at(sandbox_id)
        async with resident.lock:
            member = self._fleet.member(sandbox_id)
            if member is None or resident.heat is not Heat.HOT or (idle_only and resident.users):
                return False
            machine = awake(member.machine)
            # First: a VMM that answers too late has obeyed all the same, and a machine that runs may be told to run on.
            resident.heat = Heat.WARM
            await machine.pause()
            log.info("sandbox paused", sandbox=sandbox_id)
            return True

    async def page_out(self, sandbox_id: str) -> bool:
        """Have the memory of a paused sandbox paged out by the host; False when it is not paused (any more).

        Raises:
            HostUnfit: this host has no swap, or its kernel refuses.
            EngineFailed, TimedOut: the VMM did not answer.
        """
        resident = self.residents.look_at(sandbox_id)
        async with resident.lock:
            member = self._fleet.member(sandbox_id)
            if member is None or resident.heat is not Heat.WARM or resident.users:
                return False
            advised = await awake(member.machine).page_out()
            resident.paged_out = True
            log.info("sandbox paged out", sandbox=sandbox_id, bytes=advised)
            return True

    async def stop(self, sandbox_id: str, *, idle_only: bool = False) -> Stopped | None:
        """Bring a sandbox to disk, memory and all, and end its process; None when there was nothing to do.

        What runs in it goes on after the next wake; connections of clients end. If anything fails it stays up.

        Args:
            idle_only: leave it alone when somebody uses it.

        Raises:
            Conflict: its disk is too full, or the engine's machines do not sleep.
            GuestFailed: its file systems did not freeze.
            NoSpace, EngineFailed, TimedOut: the memory could not be written.
        """
        resident = self.residents.look_at(sandbox_id)
        while True:
            # Other captures are waited for before the lock is taken: it can be used meanwhile.
            async with turn_of(self._fleet.member(sandbox_id), stays_paused=True) as turn, resident.lock:
                member = self._fleet.member(sandbox_id)
                if member is None or resident.heat is Heat.COLD or (idle_only and resident.users):
                    return None
                if turn is not None:  # else it came up at this moment
                    stopping = asyncio.create_task(self._stop(resident, member, turn), name=f"stop {sandbox_id}")
                    await until_done(stopping)
                    return stopping.result()

    async def start(self, sandbox: Sandbox, *, force: bool = False) -> Sandbox:
        """Wake a sandbox because somebody says so, and give it as it is then.

        Raises:
            Conflict, SnapshotRefused, EngineFailed, GuestFailed, TimedOut: as ``ensure_hot`` does.
        """
        await self.ensure_hot(sandbox, force=force)
        return await self._store.sandboxes.get(sandbox.id)

    async def _stop(self, resident: Resident, member: Member, turn: Turn) -> Stopped:
        sandbox_id = member.spec.id
        # Its file systems can only be frozen by itself.
        await self._heat_up(resident, member)
        seal = await self._workshop.volumes.sealer(sandbox_id)
        final = self._workshop.memory(sandbox_id)
        taken = await take(member, final, with_disk=False, stay_paused=True, seal=seal, turn=turn)
        resident.heat = Heat.COLD
        await self._fleet.end(sandbox_id)
        await self._workshop.put_out(sandbox_id)
        sandbox = await self._lay_down(sandbox_id)
        written = taken.snapshot.size_bytes
        log.info("sandbox stopped", sandbox=sandbox_id, paused_ms=round(taken.paused_s * 1000), bytes=written)
        return Stopped(sandbox=sandbox, paused_s=taken.paused_s, written_bytes=written)

    async def _lay_down(self, sandbox_id: str) -> Sandbox:
        """Say in its row that it is stopped, even if its VMM died at this moment: all it was is on disk by now."""
        transition = self._store.sandboxes.transition
        try:
            return await transition(sandbox_id, (SandboxState.RUNNING,), SandboxState.STOPPED)
        except Conflict:
            await transition(sandbox_id, (SandboxState.FAILED,), SandboxState.RUNNING)  # which forgets why it ended
            return await transition(sandbox_id, (SandboxState.RUNNING,), SandboxState.STOPPED)

    async def _attempt(self, sandbox_id: str, resident: Resident, *, force: bool) -> None:
        resident.wake_error = None
        try:
            await self._wake(sandbox_id, resident, force=force)
        except NotFound:
            self.residents.forget(sandbox_id)
            raise
        except HearthError as error:
            resident.wake_error = error
            raise
        finally:
            resident.wakes += 1

    async def _wake(self, sandbox_id: str, resident: Resident, *, force: bool) -> None:
        if member := self._fleet.member(sandbox_id):
            await self._heat_up(resident, member)
            return
        sandbox = await self._store.sandboxes.get(sandbox_id)
        if sandbox.state is SandboxState.RUNNING or sandbox_id in self._unanswered:
            # Its VMM did not answer when this daemon started: a second one must not meet it on its disk.
            if await self.recover(sandbox) is Recovered.LOST:
                raise cannot_wake(await self._store.sandboxes.get(sandbox_id))
            await self._wake(sandbox_id, resident, force=force)
        elif sandbox.state is SandboxState.STOPPED or (sandbox.state in BOOTABLE and force):
            await self._workshop.put_out(sandbox_id)  # what its last machine has left, should nobody have come to that
            await self._start(sandbox, resident, force=force)
        else:
            raise cannot_wake(sandbox)

    async def recover(self, sandbox: Sandbox) -> Recovered:
        """Find out what became of a running or stopped sandbox while no daemon watched, and set its row right.

        A living VMM is the truth, whatever lies on disk; without one it is the memory on disk; without either there is
        the disk alone.

        Raises:
            EngineFailed: a VMM lives and does not answer now; nothing was changed.
        """
        self._unanswered.add(sandbox.id)
        machine = await self._workshop.engine.adopt(self._workshop.place(sandbox.id))
        memory = self._workshop.memory(sandbox.id)
        has_memory = await asyncio.to_thread(memory.exists)
        if machine is not None:
            try:
                paused = await _is_paused(machine)
                asleep = sandbox.state is SandboxState.STOPPED and paused
                useful = not (asleep and await _is_whole(memory))
                if useful:
                    await self._take_over(sandbox, machine, paused=paused)
            except BaseException:
                await machine.release()
                raise
            if useful:
                return Recovered.ADOPTED
            # A wake that did not come to its first instruction: the memory is still good, the process is of no use.
            await machine.kill()
        self._unanswered.discard(sandbox.id)
        await self._workshop.put_out(sandbox.id)
        await self._workshop.volumes.agree(sandbox.id, None)
        if not await asyncio.to_thread(self._workshop.place(sandbox.id).directory.exists):
            await self._lose(sandbox, DISK_GONE)
            return Recovered.LOST
        if sandbox.state is SandboxState.STOPPED or has_memory:
            if sandbox.state is SandboxState.RUNNING:
                await self._store.sandboxes.transition(sandbox.id, (SandboxState.RUNNING,), SandboxState.STOPPED)
            return Recovered.ASLEEP
        await self._lose(sandbox, LOST)
        return Recovered.LOST

    async def _lose(self, sandbox: Sandbox, why: str) -> None:
        cause = ended_by(ExitKind.HOST_RESTART, why, self._workshop.clock.now())
        expected = (SandboxState.RUNNING, SandboxState.STOPPED)
        await self._store.sandboxes.transition(sandbox.id, expected, SandboxState.LOST, error=why, exit_cause=cause)

    async def _take_over(self, sandbox: Sandbox, machine: Machine, *, paused: bool) -> None:
        spec = machine_spec(self._workshop, sandbox, await self._images.boot_files_of(sandbox))
        guest = Guest(machine.dialer, self._workshop.agent_token(sandbox.id))
        resident = self.residents[sandbox.id]
        resident.heat = Heat.WARM if paused else Heat.HOT
        resident.perhaps_frozen = self._workshop.engine.capabilities.sleep
        if sandbox.state is SandboxState.STOPPED:
            await self._store.sandboxes.transition(sandbox.id, (SandboxState.STOPPED,), SandboxState.RUNNING)
        await asyncio.to_thread(discard, self._workshop.memory(sandbox.id))
        await self._workshop.volumes.agree(sandbox.id, machine)
        await adopt(self._workshop.network, sandbox)
        self._unanswered.discard(sandbox.id)
        self._fleet.add(sandbox.id, Member(machine=machine, spec=spec, guest=guest))
        log.info("machine adopted", sandbox=sandbox.id, heat=resident.heat)

    async def _start(self, sandbox: Sandbox, resident: Resident, *, force: bool) -> None:
        # Its memory is used up by the first instruction: should a row not be written after that, it would be lost.
        require_room_to_run(self._workshop, "it sleeps")
        memory = self._workshop.memory(sandbox.id)
        note = "there was no memory to wake with: it booted from its disk"
        if await asyncio.to_thread(memory.exists):
            if resident.failed_starts >= MAX_FAILED_STARTS and not force:
                raise given_up(sandbox, resident.failed_starts)
            try:
                await self._welcome(sandbox, resident, await self._remember(sandbox, memory), None)
            except HearthError as error:
                if not is_consumed(memory):
                    resident.failed_starts += 1
                    if not force:
                        raise
                    # Before the disk changes: this memory belongs to an older one from then on.
                    await asyncio.to_thread(consume, memory)
                log.error("memory did not work", sandbox=sandbox.id, error=str(error))
                note = f"its memory did not work: it booted from its disk ({error})"
            else:
                return
        boot = await self._images.boot_files_of(sandbox)
        placements = await self._workshop.volumes.placements(sandbox.id)
        order = Order(sandbox=sandbox, boot=boot, placements=placements)
        await self._welcome(sandbox, resident, await self._bring_up(order), note)

    async def _remember(self, sandbox: Sandbox, memory: Path) -> BroughtUp:
        manifest = (await asyncio.to_thread(load, memory)).manifest
        boot = await self._images.boot_files_of(sandbox, manifest.stamp)
        order = Order(sandbox=sandbox, boot=boot, memory=memory, consumed=True, known_as=sandbox.id)
        placements = await self._workshop.volumes.placements(sandbox.id)
        return await self._bring_up(replace(order, placements=placements, known=manifest.volumes))

    async def _bring_up(self, order: Order) -> BroughtUp:
        bringup = Bringup(self._workshop, order)
        try:
            plan = bringup.start()
            subject = Subject(sandbox_id=order.sandbox.id)
            job = await self._runner.submit(plan, subject.sandbox_id, subject, owner=order.sandbox.owner)
            await self._runner.run(job.id, plan)
            return bringup.hand_over()
        finally:
            await bringup.discard()

    async def _welcome(self, sandbox: Sandbox, resident: Resident, up: BroughtUp, note: str | None) -> None:
        expected = (SandboxState.STOPPED, *BOOTABLE)
        try:
            await self._store.sandboxes.transition(sandbox.id, expected, SandboxState.RUNNING, error=note)
        except BaseException:
            await up.machine.kill()
            await self._workshop.put_out(sandbox.id)
            raise
        self._fleet.add(sandbox.id, Member(machine=up.machine, spec=up.spec, guest=up.guest))
        resident.heat, resident.failed_starts = Heat.HOT, 0
        await asyncio.to_thread(discard, self._workshop.memory(sandbox.id))
        log.info("sandbox started", sandbox=sandbox.id, note=note)

    async def _heat_up(self, resident: Resident, member: Member) -> None:
        if resident.heat is Heat.WARM:
            await self._resume(resident, member)
        elif resident.perhaps_frozen:
            await member.guest.thaw()
            resident.perhaps_frozen = False

    async def _resume(self, resident: Resident, member: Member) -> None:
        if resident.halted is not None:
            await self._end_halt(resident, member, resident.halted)
        await run_on(member.guest, awake(member.machine))
        if resident.perhaps_frozen:
            await member.guest.thaw()
        resident.heat = Heat.HOT
        resident.perhaps_frozen = resident.paged_out = False

    async def note_halt(self, sandbox_id: str, why: str) -> None:
        """Take note that a VMM stopped the CPUs by itself; the next use tries to let them run on."""
        resident = self.residents[sandbox_id]
        resident.heat, resident.halted = Heat.WARM, why
        try:
            running = (SandboxState.RUNNING,)
            await self._store.sandboxes.transition(sandbox_id, running, SandboxState.RUNNING, error=f"halted: {why}")
        except HearthError as error:
            log.warning("halt not stored", sandbox=sandbox_id, error=str(error))

    async def _end_halt(self, resident: Resident, member: Member, why: str) -> None:
        require_room_to_run(self._workshop, why)
        await self._store.sandboxes.transition(member.machine.id, (SandboxState.RUNNING,), SandboxState.RUNNING)
        resident.halted = None


async def _is_whole(memory: Path) -> bool:
    try:
        await on_own_thread("verify snapshot", lambda: verify(memory))
    except SnapshotRefused:
        return False
    return True


async def _is_paused(machine: Machine) -> bool:
    return isinstance(machine, SleepingMachine) and await machine.run_state() is RunState.PAUSED
