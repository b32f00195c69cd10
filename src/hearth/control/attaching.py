"""Volumes in and out of sandboxes that run: one change at a time to a sandbox, each whole or not at all."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine, Sequence
from typing import Any, TypeVar

import structlog

from hearth.control.creation import Creation
from hearth.control.fleet import Fleet, Member
from hearth.control.placing import Mounted, Placing, not_ready, require_apart
from hearth.control.reach import within_reach
from hearth.control.sleep import Sleep
from hearth.control.wakeable import BOOTABLE, cannot_wake
from hearth.errors import Conflict, HearthError, NotFound
from hearth.guest.client import Guest
from hearth.host.waiting import until_done
from hearth.jobs.bringup import Workshop
from hearth.jobs.volumes import no_places, with_places
from hearth.model import Heat, NamedVolume, Sandbox, User, VolumePlacement, VolumeState
from hearth.store.base import Store
from hearth.volume.base import volume_in_use
from hearth.volume.mounting import VolumeRequest, check_mount_path
from hearth.volume.names import check_volume_name

log = structlog.get_logger(__name__)

T = TypeVar("T")


class Attaching:
    """Attaches and detaches."""

    def __init__(
        self, *, store: Store, workshop: Workshop, fleet: Fleet, creation: Creation, sleep: Sleep, placing: Placing
    ) -> None:
        self._store = store
        self._machines = workshop.volumes
        self._fleet = fleet
        self._creation = creation
        self._sleep = sleep
        self._placing = placing

    async def attach(self, user: User, reference: str, request: VolumeRequest) -> Mounted:
        """Mount a volume of a sandbox's owner in the sandbox, woken if need be; what is there so already is fine.

        Raises:
            InvalidInput: names the field.
            NotFound: no such sandbox, or no such volume.
            VolumeInUse: another sandbox has it in a way that excludes this one.
            Conflict: it is there otherwise, all places are taken, something is mounted there, or the engine's machines
                take no volumes.
            EngineFailed, GuestFailed, TimedOut, VolumeDamaged: it is not attached.
        """
        check_volume_name(request.name, what="name")
        check_mount_path(request.mount)
        sandbox = await self._sandbox(user, reference)
        volume = await self._store.volumes.resolve(sandbox.owner, request.name)
        if volume.state is not VolumeState.READY:
            raise not_ready(volume)
        async with self._sleep.residents[sandbox.id].volumes_lock, self._sleep.awake(sandbox) as guest:
            placement = await _to_the_end(self._attach(sandbox, volume, request, guest), f"attach {volume.id}")
        return Mounted(placement=placement, volume_name=volume.name)

    async def detach(self, user: User, reference: str, volume_reference: str) -> None:
        """Unmount a volume and take it out of a sandbox, woken if need be.

        One whose machine ended by itself is not woken: then nobody has the volume any more.

        Raises:
            NotFound: no such sandbox, no such volume, or it is not attached there.
            Conflict: something in the sandbox uses it; the guest's words tell.
            EngineFailed, GuestFailed, TimedOut: it is attached as before.
        """
        sandbox = await self._sandbox(user, reference)
        volume = await self._store.volumes.resolve(sandbox.owner, volume_reference)
        resident = self._sleep.residents[sandbox.id]
        async with resident.volumes_lock:
            async with resident.lock:
                sandbox = await self._store.sandboxes.get(sandbox.id)
                if sandbox.state in BOOTABLE:
                    placement, _ = await self._find(sandbox, volume)
                    await self._machines.give_back(placement)
                    return
            async with self._sleep.awake(sandbox) as guest:
                await _to_the_end(self._detach(sandbox, volume, guest), f"detach {volume.id}")

    async def _attach(
        self, sandbox: Sandbox, volume: NamedVolume, request: VolumeRequest, guest: Guest
    ) -> VolumePlacement:
        placed = await self._machines.placements(sandbox.id)
        for there in placed:
            if there.volume_id == volume.id:
                if (there.mount, there.read_only) != (request.mount, request.read_only):
                    raise _attached_otherwise(volume, there)
                await guest.settle_volumes(self._machines.mounts(placed))  # an attempt that was cut may not have
                return there
        require_apart(request, placed)
        placement = self._placing.choose(sandbox, volume, request, placed)
        async with self._hot(sandbox) as member:
            await self._placing.place(placement)
            try:
                with await self._machines.take([placement]) as taken:
                    await taken.plug_into(member.machine, known=())
                await member.guest.settle_volumes(self._machines.mounts([*placed, placement]))
            except BaseException:
                await self._take_back(member, placement, placed)
                raise
        log.info("volume attached", volume=volume.id, sandbox=sandbox.id, read_only=placement.read_only)
        return placement

    async def _detach(self, sandbox: Sandbox, volume: NamedVolume, guest: Guest) -> None:
        placement, rest = await self._find(sandbox, volume)
        await guest.settle_volumes(self._machines.mounts(rest))
        async with self._hot(sandbox) as member:
            try:
                await with_places(member.machine).detach_volume(placement.slot)
            except HearthError:
                with contextlib.suppress(HearthError):  # it may be mounted again at the next start
                    await member.guest.settle_volumes(self._machines.mounts([*rest, placement]))
                raise
            await self._machines.give_back(placement)
        log.info("volume detached", volume=volume.id, sandbox=sandbox.id)

    async def _take_back(self, member: Member, placement: VolumePlacement, placed: Sequence[VolumePlacement]) -> None:
        """Undo half an attachment; what cannot be undone stays noted, for it is so."""
        with contextlib.suppress(HearthError):  # mounted or not: what counts is that the VMM lets go of it
            await member.guest.settle_volumes(self._machines.mounts(placed))
        try:
            await with_places(member.machine).detach_volume(placement.slot)
            await self._machines.give_back(placement)
        except HearthError as error:
            log.error("half an attachment stays", volume=placement.volume_id, error=str(error))

    async def _find(self, sandbox: Sandbox, volume: NamedVolume) -> tuple[VolumePlacement, Sequence[VolumePlacement]]:
        """Give the placement of a volume in a sandbox, and the others there."""
        placed = await self._machines.placements(sandbox.id)
        for placement in placed:
            if placement.volume_id == volume.id:
                return placement, [other for other in placed if other is not placement]
        raise NotFound(
            "the volume is not attached",
            details=f"{volume.name!r} is not in {sandbox.spec.name}",
            resolution="see where it is attached: 'hearth volume inspect'",
            field="volume",
        )

    @contextlib.asynccontextmanager
    async def _hot(self, sandbox: Sandbox) -> AsyncIterator[Member]:
        """Give a machine that runs and that nobody pauses, stops or ends inside the context."""
        resident = self._sleep.residents[sandbox.id]
        while True:
            async with resident.lock:
                member = self._fleet.member(sandbox.id)
                if member is None:
                    raise cannot_wake(await self._store.sandboxes.get(sandbox.id))
                if resident.heat is Heat.HOT:
                    yield member
                    return
            await self._sleep.ensure_hot(sandbox)  # somebody paused it at this moment

    async def _sandbox(self, user: User, reference: str) -> Sandbox:
        sandbox = await within_reach(self._store.sandboxes, user, reference)
        if not self._machines.places:
            raise no_places("the daemon's engine has no places for volumes")
        return await self._creation.settle(sandbox)


def _attached_otherwise(volume: NamedVolume, there: VolumePlacement) -> Conflict:
    mode = "read-only" if there.read_only else "read-write"
    return volume_in_use(volume.name, f"attached to this sandbox already: {mode} at {there.mount}")


async def _to_the_end(work: Coroutine[Any, Any, T], name: str) -> T:
    """Do what must not stop half-way; a cancellation waits for it."""
    task = asyncio.create_task(work, name=name)
    await until_done(task)
    return task.result()
