"""Where volumes go in sandboxes: which place, whether another sandbox is in the way, and what is noted of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from hearth.engine.base import VolumePlace
from hearth.engine.manifest import VolumeRecord
from hearth.errors import Conflict, NotFound
from hearth.host.clock import Clock
from hearth.model import NamedVolume, Sandbox, VolumePlacement, VolumeState
from hearth.store.base import Store
from hearth.volume.base import volume_in_use
from hearth.volume.mounting import VolumeRequest, is_within

Guard = Callable[[NamedVolume], Awaitable[None]]


async def _nothing_to_guard(_: NamedVolume) -> None:
    """Whatever is detached may be placed."""


@dataclass(frozen=True, kw_only=True)
class Placed:
    """Where a volume is, and the name of the sandbox."""

    placement: VolumePlacement
    sandbox_name: str


@dataclass(frozen=True, kw_only=True)
class Mounted:
    """A volume of a sandbox, by name."""

    placement: VolumePlacement
    volume_name: str


class Placing:
    """The placements of all sandboxes.

    Args:
        places: those of the engine's machines.
    """

    def __init__(self, *, store: Store, places: Sequence[VolumePlace], clock: Clock) -> None:
        self._store = store
        self._places = places
        self._clock = clock
        self.guard: Guard = _nothing_to_guard
        """Asked before a volume is placed in a sandbox; raises where it must not be."""

    async def keep(self, placements: Sequence[VolumePlacement]) -> None:
        """Let volumes that were made for a sandbox be volumes like others: it runs."""
        for placement in placements:
            volume = await self._store.volumes.get(placement.volume_id)
            if volume.state is VolumeState.CREATING:
                await self._store.volumes.transition(volume.id, (VolumeState.CREATING,), VolumeState.READY)

    def choose(
        self, sandbox: Sandbox, volume: NamedVolume, request: VolumeRequest, placed: Sequence[VolumePlacement]
    ) -> VolumePlacement:
        """Give a volume the first free place of its kind.

        Raises:
            Conflict: all are taken.
        """
        taken = {placement.slot for placement in placed}
        fitting = [place for place in self._places if place.read_only is request.read_only]
        free = [place for place in fitting if place.number not in taken]
        if not free:
            kind = "read-only" if request.read_only else "writable"
            raise Conflict(
                f"no room for another {kind} volume",
                details=f"a sandbox has {len(fitting)} places for {kind} volumes, all taken",
                resolution="detach one first",
                field="volumes",
            )
        return VolumePlacement(
            sandbox_id=sandbox.id,
            volume_id=volume.id,
            mount=request.mount,
            read_only=request.read_only,
            slot=free[0].number,
            attached_at=self._clock.now(),
        )

    def inherit(self, sandbox: Sandbox, record: VolumeRecord) -> VolumePlacement:
        """Give a volume the place in a sandbox that its memory knows it in."""
        return VolumePlacement(
            sandbox_id=sandbox.id,
            volume_id=record.volume,
            mount=record.mount,
            read_only=record.read_only,
            slot=record.place,
            attached_at=self._clock.now(),
        )

    async def place(self, placement: VolumePlacement) -> None:
        """Note where a volume goes.

        Raises:
            NotFound: it is gone.
            VolumeInUse: another sandbox has it in a way that excludes this one.
            Conflict: it is being deleted, or the place is taken.
        """
        volume = await self._store.volumes.get(placement.volume_id)
        await self.guard(volume)
        await self.require_detached(volume, but=placement.sandbox_id, but_readers=placement.read_only)
        await self._store.volumes.place(placement)
        # Again, for a deletion looks at placements after it has said that it is one: one of the two sees the other.
        current = await self._store.volumes.get(placement.volume_id)
        if current.state is not VolumeState.READY:
            await self._store.volumes.displace(placement.sandbox_id, placement.volume_id)
            raise not_ready(current)

    async def require_detached(self, volume: NamedVolume, *, but: str | None = None, but_readers: bool = False) -> None:
        """Refuse a volume that a sandbox has, by name; ``hearth.volume.locks`` has the last word.

        Args:
            but: this sandbox may have it.
            but_readers: those that only read may have it.

        Raises:
            VolumeInUse: ``details`` name the sandbox.
        """
        for placed in await self.placed(volume):
            placement = placed.placement
            if placement.sandbox_id != but and not (but_readers and placement.read_only):
                mode = "read-only" if placement.read_only else "read-write"
                raise volume_in_use(volume.name, f"attached to {placed.sandbox_name} ({mode})")

    async def placed(self, volume: NamedVolume) -> Sequence[Placed]:
        """Tell where a volume is, the longest attached first."""
        found = []
        for placement in await self._store.volumes.sandboxes_of(volume.id):
            try:
                name = (await self._store.sandboxes.get(placement.sandbox_id)).spec.name
            except NotFound:  # destroyed at this moment
                continue
            found.append(Placed(placement=placement, sandbox_name=name))
        return found

    async def mounted(self, sandbox: Sandbox) -> Sequence[Mounted]:
        """Tell which volumes a sandbox has, by their places."""
        found = []
        for placement in await self._store.volumes.in_sandbox(sandbox.id):
            volume = await self._store.volumes.get(placement.volume_id)
            found.append(Mounted(placement=placement, volume_name=volume.name))
        return found


def not_ready(volume: NamedVolume) -> Conflict:
    """Give the error for a volume that is being made or deleted."""
    return Conflict(
        "the volume is not ready",
        details=f"{volume.name} is {volume.state}",
        resolution="wait a moment and try again",
        field="volume",
    )


def require_apart(request: VolumeRequest, placed: Sequence[VolumePlacement]) -> None:
    """Refuse to mount a volume on, in or around another one.

    Raises:
        Conflict: names the other's path.
    """
    for other in placed:
        if is_within(request.mount, other.mount) or is_within(other.mount, request.mount):
            raise Conflict(
                "another volume is mounted there",
                details=f"{request.mount} and {other.mount} lie one in the other",
                resolution="choose a path of its own",
                field="mount",
            )
