"""Takes a snapshot of a machine that is up: freezes its file systems, pauses it, captures, publishes.

Whatever goes wrong, the machine runs on as before and nothing is left of the attempt.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from pathlib import Path

import structlog

from hearth.control.fleet import Member
from hearth.control.measuring import measured
from hearth.engine.base import Capture, SleepingMachine, VolumeSeal
from hearth.engine.budget import Turn
from hearth.engine.snapshot import StoredSnapshot, discard, publish, stage, verify
from hearth.errors import Conflict, HearthError, NoSpace
from hearth.guest.client import Guest
from hearth.host.threads import on_own_thread
from hearth.host.waiting import until_done
from hearth.jobs.bringup import awake
from hearth.jobs.volumes import Sealer
from hearth.wire.messages import FrozenMount

log = structlog.get_logger(__name__)

MAX_DISK_USE = 0.95
"""A fuller root disk leaves the guest no room to come back to."""
MIB = 1024 * 1024


def _nothing() -> None:
    """Nobody waits for the machine to run on."""


def no_volumes() -> tuple[VolumeSeal, ...]:
    """Seal the volumes of a machine that has none."""
    return ()


@dataclass(frozen=True, kw_only=True)
class Taken:
    """A published snapshot; for ``paused_s`` seconds the guest's CPUs stood still for it."""

    snapshot: StoredSnapshot
    paused_s: float


@measured
async def take(
    member: Member,
    final: Path,
    *,
    with_disk: bool,
    stay_paused: bool,
    stay_frozen: bool = True,
    settle_s: float = 0.0,
    on_running: Callable[[], None] = _nothing,
    seal: Sealer = no_volumes,
    turn: Turn | None = None,
) -> Taken:
    """Publish a snapshot of a hot machine as ``final``.

    Args:
        member: the machine; nobody else may change its heat meanwhile, unless it runs on: then until ``on_running``.
        with_disk: with a copy of its disk, for others to start from.
        stay_paused: on success the machine is left paused, to be ended; else it runs on.
        stay_frozen: its file systems are frozen when it is captured, so that its disk is of use without its memory;
            else they were written out before, and no copy begins its life with thawing them.
        settle_s: how long it runs, frozen or not, for the last connections of its host to be closed.
        on_running: called when it runs on and all that is left to do is to write what was taken.
        seal: tells, while it is paused, which volumes its memory knows.
        turn: memory for that, which somebody who keeps others from the machine waits for before he does; None waits
            for it here.

    Raises:
        Conflict: its disk is too full, or the engine's machines do not sleep.
        GuestFailed, TimedOut: its file systems did not freeze.
        NoSpace, EngineFailed: the snapshot could not be written.
    """
    machine = awake(member.machine)
    async with contextlib.AsyncExitStack() as held:
        if turn is None:
            turn = await held.enter_async_context(machine.turn(member.spec, stays_paused=stay_paused))
        await asyncio.to_thread(_check_room, final, member.spec.memory_mib)
        order = _Order(
            member=member,
            machine=machine,
            final=final,
            with_disk=with_disk,
            stays_frozen=stay_frozen,
            turn=turn,
            seal=seal,
        )
        return await _take(order, settle_s, on_running)


@dataclass(frozen=True, kw_only=True)
class _Order:
    """What is to be taken of whom, and its turn."""

    member: Member
    machine: SleepingMachine
    final: Path
    with_disk: bool
    stays_frozen: bool
    turn: Turn
    seal: Sealer


async def _take(order: _Order, settle_s: float, on_running: Callable[[], None]) -> Taken:
    member, machine, final = order.member, order.machine, order.final
    stays_paused = order.turn.stays_paused
    freezing = asyncio.create_task(member.guest.freeze(), name=f"freeze {machine.id}")
    staging: Path | None = None
    runs = False
    started_s = time.monotonic()
    try:
        await until_done(freezing)  # left half-way it would freeze after it was thawed
        _check_disks(freezing.result())
        if not order.stays_frozen:
            await member.guest.thaw()
        await asyncio.sleep(settle_s)
        staging = await asyncio.to_thread(stage, final)
        started_s = time.monotonic()
        capture = await _capture(order, staging)
        paused_s = time.monotonic() - started_s
        if not stays_paused:
            await member.guest.thaw()
            runs = True
            on_running()
        await capture.store()
        snapshot = await on_own_thread("publish snapshot", lambda: _publish(staging, final), discard=_withdraw)
    except BaseException:
        # A cancellation, too, waits for this: a guest must not be left frozen.
        frozen = None if runs or freezing.exception() is not None else member
        recovery = asyncio.create_task(_recover(frozen, machine, staging), name=f"recover {machine.id}")
        await until_done(recovery)
        raise
    return Taken(snapshot=snapshot, paused_s=time.monotonic() - started_s if stays_paused else paused_s)


async def _capture(order: _Order, staging: Path) -> Capture:
    member, machine, stays_paused = order.member, order.machine, order.turn.stays_paused
    if stays_paused:
        # Only now that nothing speaks against it: commands of clients end with their connections.
        member.guest.disconnect()
    await machine.pause()
    spec = replace(member.spec, volumes=order.seal())
    capture = await machine.capture(spec, staging, with_disk=order.with_disk, turn=order.turn)
    if not stays_paused:
        await run_on(member.guest, machine)
    return capture


@contextlib.asynccontextmanager
async def turn_of(member: Member | None, *, stays_paused: bool) -> AsyncIterator[Turn | None]:
    """Wait for memory to capture a machine with, before anybody is kept from it; None where there is no machine.

    Raises:
        Conflict: the engine's machines do not sleep.
    """
    if member is None:
        yield None
        return
    async with awake(member.machine).turn(member.spec, stays_paused=stays_paused) as turn:
        yield turn


async def run_on(guest: Guest, machine: SleepingMachine) -> None:
    """Let a paused machine run on; its clock is set right by the next connection."""
    await machine.resume()
    guest.woken()


async def _recover(frozen: Member | None, machine: SleepingMachine, staging: Path | None) -> None:
    try:
        if frozen is not None:
            await run_on(frozen.guest, machine)
            await frozen.guest.thaw()
    except HearthError as error:
        # The agent thaws by itself after a while; a dead machine is noticed by whoever watches it.
        log.warning("machine not thawed", machine=machine.id, error=str(error))
    if staging is not None:
        await asyncio.to_thread(discard, staging)


def _publish(staging: Path, final: Path) -> StoredSnapshot:
    publish(staging, final)
    try:
        return verify(final)
    except BaseException:
        discard(final)
        raise


def _withdraw(snapshot: StoredSnapshot) -> None:
    """The machine runs on, so this must not be found as the memory of one that was stopped."""
    discard(snapshot.directory)


def _check_disks(mounts: list[FrozenMount]) -> None:
    for mount in mounts:
        # A full volume harms nobody but itself: what the guest needs to come back is not written there.
        if mount.mount == "/" and mount.total_bytes and 1 - mount.available_bytes / mount.total_bytes > MAX_DISK_USE:
            raise Conflict(
                "the sandbox's disk is too full to be stopped",
                details=f"{mount.mount} has {mount.available_bytes // MIB} of {mount.total_bytes // MIB} MiB left",
                resolution="delete files in the sandbox and try again, or destroy it",
            )


def _check_room(final: Path, memory_mib: int) -> None:
    free_mib = shutil.disk_usage(final.parent).free // MIB
    if free_mib < memory_mib:
        raise NoSpace(
            "no space for a snapshot",
            details=f"{final.parent} has {free_mib} MiB left, the machine's memory may need {memory_mib} MiB",
            resolution="free space, or destroy sandboxes and snapshots",
        )
