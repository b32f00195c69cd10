"""Use cases of volumes: create, find, grow, copy, delete; and the volumes a new sandbox gets. Every call says for whom.

The row comes before the bytes and goes after them, so no bytes are there that nobody owns.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import structlog

from hearth.control.pages import every
from hearth.control.placing import Placed, Placing, not_ready, require_apart
from hearth.control.reach import within_reach
from hearth.engine.manifest import VolumeRecord
from hearth.errors import HearthError
from hearth.host.identity import new_id
from hearth.host.waiting import until_done
from hearth.jobs.bringup import Workshop
from hearth.jobs.volumes import no_places
from hearth.model import NamedVolume, Sandbox, SandboxState, User, VolumePlacement, VolumeState
from hearth.store.base import FIRST_PAGE, Page, PageRequest, Store
from hearth.volume.base import MEBIBYTE, FileSystem, Volume, VolumeInUse, VolumeSpec, check_size
from hearth.volume.linked import POOL_TAG, PROVISIONED_TAG
from hearth.volume.mounting import VolumeRequest, check_requests
from hearth.volume.names import check_volume_name

log = structlog.get_logger(__name__)

T = TypeVar("T")

ID_KIND = "vol"
UNSETTLED = (SandboxState.CREATING, SandboxState.DESTROYING)


@dataclass(frozen=True, kw_only=True)
class NewVolume:
    """A volume to be made for a new sandbox, ``size_mib`` MiB, mounted at ``mount``."""

    name: str
    size_mib: int
    mount: str


@dataclass(frozen=True, kw_only=True)
class WantedVolumes:
    """The volumes a new sandbox is to get: those there are, new ones, and those its memory knows from its source."""

    existing: Sequence[VolumeRequest] = ()
    new: Sequence[NewVolume] = ()
    inherited: Sequence[VolumeRecord] = ()

    def __bool__(self) -> bool:
        return bool(self.existing or self.new or self.inherited)

    @property
    def requests(self) -> list[VolumeRequest]:
        """All that the caller asked for, the new ones last."""
        made = [VolumeRequest(name=each.name, mount=each.mount) for each in self.new]
        return [*self.existing, *made]


NO_VOLUMES = WantedVolumes()


@dataclass(frozen=True, kw_only=True)
class VolumeReport:
    """All about a volume; ``allocated_bytes`` is what it takes up on this host, None where that cannot be told.

    ``provisioned`` and ``pool`` say which provisioned volume it is, if it is one.
    """

    volume: NamedVolume
    allocated_bytes: int | None
    placed: Sequence[Placed]
    provisioned: str | None = None
    pool: str | None = None


class Volumes:
    """The volumes of all users on this host."""

    def __init__(self, *, store: Store, workshop: Workshop) -> None:
        self.placing = Placing(store=store, places=workshop.volumes.places, clock=workshop.clock)
        self._store = store
        self._machines = workshop.volumes
        self._clock = workshop.clock

    async def create(self, user: User, name: str, size_mib: int) -> NamedVolume:
        """Make an empty volume with a file system.

        Raises:
            InvalidInput: name or size is not acceptable.
            Conflict: the user has one of that name.
            QuotaExceeded: the user has as much as may be had.
            NoSpace: what could be written to it would not fit on the host.
        """
        (volume,) = await self._enter(user.id, {name: size_mib})
        return await self._fill(volume, self._make(volume))

    async def adopt(
        self, owner: str, name: str, size_mib: int, write: Callable[[NamedVolume], Awaitable[None]]
    ) -> NamedVolume:
        """Make a volume whose bytes are there already; ``write`` notes where. Raises as ``create``."""
        (volume,) = await self._enter(owner, {name: size_mib})
        return await self._fill(volume, _awaited(write, volume))

    async def list(self, user: User, page: PageRequest = FIRST_PAGE) -> Page[VolumeReport]:
        """Give a page of the user's volumes (everybody's for an administrator), oldest first."""
        found = await self._store.volumes.list(_scope(user), page=page)
        items = [await self._report(volume) for volume in found.items]
        return Page(items=items, next_cursor=found.next_cursor)

    async def get(self, user: User, reference: str) -> NamedVolume:
        """Find a volume of the user's by id or name.

        Raises:
            NotFound: the user has none such.
            Conflict: a name fits those of several users.
        """
        return await within_reach(self._store.volumes, user, reference)

    async def inspect(self, user: User, reference: str) -> VolumeReport:
        """Tell all about a volume. Raises as ``get``."""
        return await self._report(await self.get(user, reference))

    async def resize(self, user: User, reference: str, size_mib: int) -> NamedVolume:
        """Grow a volume and its file system; the size it has is fine.

        Raises:
            InvalidInput: it would shrink, or become too large.
            NotFound: no such volume.
            VolumeInUse: a sandbox has it.
            QuotaExceeded, NoSpace, VolumeDamaged: it is as it was.
        """
        check_size(size_mib)
        volume = _ready(await self.get(user, reference))
        await self.placing.require_detached(volume)
        async with self._machines.attachments.reserved(volume.id):
            return await self._to_the_end(self._grow(volume, size_mib), f"grow {volume.id}")

    async def clone(self, user: User, reference: str, name: str) -> NamedVolume:
        """Copy a volume that nobody writes to.

        Raises:
            InvalidInput: ``name`` is not acceptable.
            NotFound: no such volume.
            VolumeInUse: a sandbox writes to it.
            Conflict, QuotaExceeded, NoSpace: nothing is left of the attempt.
        """
        source = _ready(await self.get(user, reference))
        await self.placing.require_detached(source, but_readers=True)
        (volume,) = await self._enter(user.id, {name: source.size_mib})
        return await self._fill(volume, self._copy(source, volume))

    async def delete(self, user: User, reference: str) -> None:
        """Delete a volume for good.

        Raises:
            NotFound: no such volume.
            VolumeInUse: a sandbox has it.
        """
        volume = await self.get(user, reference)
        if volume.state is VolumeState.CREATING:
            raise not_ready(volume)
        await self.placing.require_detached(volume)
        async with self._machines.attachments.reserved(volume.id):
            await self._to_the_end(self._delete(volume), f"delete {volume.id}")
        log.info("volume deleted", volume=volume.id, name=volume.name)

    async def check_wanted(self, user: User, wanted: WantedVolumes) -> None:
        """Refuse, before anything is done, volumes that a new sandbox cannot get.

        Raises:
            InvalidInput: names the field.
            NotFound, VolumeInUse: as their names say.
            Conflict: the engine's machines take no volumes.
        """
        if not wanted:
            return
        ready = {request.name: await self._own(user.id, request.name) for request in wanted.existing}
        places = self._machines.places
        if not places:
            raise no_places("the daemon's engine has no places for volumes")
        read_only = sum(place.read_only for place in places)
        check_requests(wanted.requests, writable_max=len(places) - read_only, read_only_max=read_only)
        for each in wanted.new:
            check_size(each.size_mib)
        for request in wanted.existing:
            await self.placing.require_detached(ready[request.name], but_readers=request.read_only)

    async def provide(self, sandbox: Sandbox, wanted: WantedVolumes) -> Sequence[VolumePlacement]:
        """Say where in a sandbox, whose row is there, its owner's volumes go, and make the new ones.

        ``MachineVolumes.clear`` undoes it until ``Placing.keep`` was called.

        Raises:
            NotFound: there is no such volume.
            VolumeInUse: another sandbox has one.
            Conflict, QuotaExceeded, NoSpace: a new one cannot be made.
        """
        placed: list[VolumePlacement] = []
        for record in wanted.inherited:
            placed.append(self.placing.inherit(sandbox, record))
            await self.placing.place(placed[-1])
        for request in wanted.existing:
            volume = await self._own(sandbox.owner, request.name)
            require_apart(request, placed)
            placed.append(self.placing.choose(sandbox, volume, request, placed))
            await self.placing.place(placed[-1])
        made = await self._enter(sandbox.owner, {each.name: each.size_mib for each in wanted.new})
        for volume, each in zip(made, wanted.new, strict=True):
            request = VolumeRequest(name=each.name, mount=each.mount)
            require_apart(request, placed)
            placed.append(self.placing.choose(sandbox, volume, request, placed))
            await self._store.volumes.place(placed[-1])
        for volume in made:
            await self._make(volume)
        return placed

    async def recover(self, sandboxes: Collection[Sandbox]) -> None:
        """After a start: finish or undo what was cut short; nobody is served yet, sandboxes were looked after.

        Raises:
            HearthError: the last of what resisted; everything else was done.
        """
        known = {sandbox.id for sandbox in sandboxes}
        await self._machines.backend.sweep()
        refused: HearthError | None = None
        for volume in await every(lambda page: self._store.volumes.list(None, page=page)):
            try:
                await self._recover(volume)
            except HearthError as error:
                log.error("volume not recovered", volume=volume.id, error=str(error))
                refused = error
        for claim in self._machines.attachments.list():
            if claim.holder.machine not in known:
                log.warning("a volume's last machine is unknown", volume=claim.volume, machine=claim.holder.machine)
                await self._machines.attachments.release(claim.volume, claim.holder.machine)
        if refused is not None:
            raise refused

    async def _recover(self, volume: NamedVolume) -> None:
        placed = await self._store.volumes.sandboxes_of(volume.id)
        if volume.state is VolumeState.DELETING:
            await self._machines.discard(volume.id, (VolumeState.DELETING,))
        elif volume.state is VolumeState.CREATING and not placed:
            await self._machines.discard(volume.id, (VolumeState.CREATING,))
            log.info("unfinished volume removed", volume=volume.id, name=volume.name)
        elif volume.state is VolumeState.CREATING:
            sandbox = await self._store.sandboxes.get(placed[0].sandbox_id)
            if sandbox.state not in UNSETTLED:
                await self.placing.keep(placed)
        else:
            size_mib = (await self._machines.backend.describe(volume.id)).size_bytes // MEBIBYTE
            if size_mib != volume.size_mib:
                await self._resized(volume, size_mib)

    async def _report(self, volume: NamedVolume) -> VolumeReport:
        there: Volume | None
        try:
            there = await self._machines.backend.describe(volume.id)
        except HearthError as error:  # being made, or damaged: there is more to tell than that
            log.debug("storage does not tell of a volume", volume=volume.id, error=str(error))
            there = None
        tags = {} if there is None else there.tags
        return VolumeReport(
            volume=volume,
            allocated_bytes=None if there is None else there.allocated_bytes,
            placed=await self.placing.placed(volume),
            provisioned=tags.get(PROVISIONED_TAG),
            pool=tags.get(POOL_TAG),
        )

    async def _own(self, owner: str, reference: str) -> NamedVolume:
        return _ready(await self._store.volumes.resolve(owner, reference))

    async def _enter(self, owner: str, sizes_mib: Mapping[str, int]) -> Sequence[NamedVolume]:
        """Write the rows of new volumes, all or none, if the owner may have them."""
        for name, size_mib in sizes_mib.items():
            check_size(size_mib)
            check_volume_name(name, what="name")
        rows = [
            NamedVolume(
                id=new_id(ID_KIND),
                owner=owner,
                name=name,
                size_mib=size_mib,
                fs=FileSystem.EXT4.value,
                created_at=self._clock.now(),
            )
            for name, size_mib in sizes_mib.items()
        ]
        await self._to_the_end(self._write(rows), "note new volumes")
        return rows

    async def _write(self, rows: Sequence[NamedVolume]) -> None:
        written: list[NamedVolume] = []
        try:
            for row in rows:
                await self._store.volumes.create(row)
                written.append(row)
        except BaseException:
            for row in written:
                await self._store.volumes.delete(row.id, (VolumeState.CREATING,))
            raise

    async def _fill(self, volume: NamedVolume, work: Coroutine[Any, Any, None]) -> NamedVolume:
        """Do what gives a new volume its bytes; if it fails nothing is left, whoever waits for it."""

        async def fill() -> NamedVolume:
            try:
                await work
                return await self._store.volumes.transition(volume.id, (VolumeState.CREATING,), VolumeState.READY)
            except BaseException:
                await self._machines.discard(volume.id, (VolumeState.CREATING,))
                raise

        ready = await self._to_the_end(fill(), f"make {volume.id}")
        log.info("volume made", volume=ready.id, name=ready.name, mib=ready.size_mib)
        return ready

    async def _make(self, volume: NamedVolume) -> None:
        await self._machines.backend.create(VolumeSpec(name=volume.id, size_mib=volume.size_mib))

    async def _copy(self, source: NamedVolume, volume: NamedVolume) -> None:
        async with self._machines.attachments.reserved(source.id, for_reading=True):
            made = await self._machines.backend.clone(source.id, volume.id)
        if made.size_bytes != volume.size_mib * MEBIBYTE:  # it was grown since its row was read
            await self._resized(volume, made.size_bytes // MEBIBYTE)

    async def _grow(self, volume: NamedVolume, size_mib: int) -> NamedVolume:
        grown = await self._resized(volume, size_mib)  # it counts from now on
        try:
            await self._machines.backend.resize(volume.id, size_mib)
        except BaseException:
            await self._resized(volume, volume.size_mib)
            raise
        log.info("volume grown", volume=volume.id, name=volume.name, mib=size_mib)
        return grown

    async def _resized(self, volume: NamedVolume, size_mib: int) -> NamedVolume:
        return await self._store.volumes.transition(volume.id, (volume.state,), volume.state, size_mib=size_mib)

    async def _delete(self, volume: NamedVolume) -> None:
        states = (VolumeState.READY, VolumeState.DELETING)
        await self._store.volumes.transition(volume.id, states, VolumeState.DELETING)
        try:
            await self.placing.require_detached(volume)
        except VolumeInUse:
            await self._store.volumes.transition(volume.id, (VolumeState.DELETING,), VolumeState.READY)
            raise
        await self._machines.discard(volume.id, (VolumeState.DELETING,))

    async def _to_the_end(self, work: Coroutine[Any, Any, T], name: str) -> T:
        """Do what must not stop half-way; a cancellation waits for it."""
        task = asyncio.create_task(work, name=name)
        await until_done(task)
        return task.result()


async def _awaited(write: Callable[[NamedVolume], Awaitable[None]], volume: NamedVolume) -> None:
    await write(volume)


def _ready(volume: NamedVolume) -> NamedVolume:
    if volume.state is not VolumeState.READY:
        raise not_ready(volume)
    return volume


def _scope(user: User) -> str | None:
    return None if user.admin else user.id
