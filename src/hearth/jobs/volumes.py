"""The volumes of a machine on its way up and down: the right to them before the VMM starts, given back after its end.

Three parties know of a volume in a machine. The store's placement says where it goes; ``hearth.volume.locks`` says who
may have it; the VMM has it. Each comes before the next and goes after it: docs/decisions/volumes-wiring.md.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import structlog

from hearth.engine.base import PLAIN, Machine, VolumeLayout, VolumeMachine, VolumePlace, VolumeSeal
from hearth.engine.manifest import VolumeRecord
from hearth.engine.snapshot import require_same_volumes
from hearth.errors import Conflict, HearthError
from hearth.model import VolumePlacement, VolumeState
from hearth.store.volume_store import VolumeStore
from hearth.volume.base import AttachMode, FileSystem, VolumeInUse
from hearth.volume.linked import LinkedVolumes
from hearth.volume.locks import Attachment, Attachments
from hearth.wire.messages import VolumeMount

log = structlog.get_logger(__name__)

Sealer = Callable[[], tuple[VolumeSeal, ...]]
"""Looks at a machine's volumes, which nobody may write to at that moment; quick enough for a paused machine."""


@dataclass(frozen=True, kw_only=True)
class TakenVolume:
    """A volume that is open for a machine, and where in it it goes."""

    placement: VolumePlacement
    attachment: Attachment
    layout: VolumeLayout = PLAIN

    def close(self) -> None:
        """Close our copies."""
        self.attachment.close()
        if self.layout.base >= 0:
            os.close(self.layout.base)

    @property
    def seal(self) -> VolumeSeal:
        """Tell how it is now."""
        return seal_of(self.placement, self.attachment.descriptor)


class TakenVolumes:
    """Volumes that are open for a machine until this is left; the VMM has descriptors of its own by then."""

    def __init__(self) -> None:
        self.volumes: list[TakenVolume] = []

    def require_known(self, snapshot: str, known: Sequence[VolumeRecord], *, all_of_them: bool) -> None:
        """See that the volumes which the memory of a snapshot knows are among these, and as they were.

        Args:
            all_of_them: and that there are no others; a copy may get more than its source had.

        Raises:
            SnapshotRefused: it is otherwise.
        """
        places = {record.place for record in known}
        seals = [taken.seal for taken in self.volumes]
        found = [seal for seal in seals if all_of_them or seal.place in places]
        require_same_volumes(snapshot, known, found)

    async def plug_into(self, machine: Machine, known: Sequence[VolumeRecord]) -> None:
        """Put them into a machine; its guest is told of all but the ``known``.

        Raises:
            EngineFailed, TimedOut: the VMM refused; end it.
        """
        places = {record.place for record in known}
        for taken in self.volumes:
            place, descriptor = taken.placement.slot, taken.attachment.descriptor
            await with_places(machine).attach_volume(place, descriptor, layout=taken.layout, is_known=place in places)

    def close(self) -> None:
        """Close our copies; doing it twice is fine."""
        for taken in self.volumes:
            taken.close()
        self.volumes = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class MachineVolumes:
    """Takes volumes for machines and gives them back.

    Args:
        places: those of the engine's machines.
    """

    def __init__(
        self,
        *,
        store: VolumeStore,
        backend: LinkedVolumes,
        attachments: Attachments,
        places: Sequence[VolumePlace],
    ) -> None:
        self.places = tuple(places)
        self.backend = backend
        self.attachments = attachments
        self._store = store
        self._devices = {place.number: place.device for place in places}

    async def placements(self, sandbox_id: str) -> Sequence[VolumePlacement]:
        """Tell which volumes belong into a machine."""
        return await self._store.in_sandbox(sandbox_id) if self.places else ()

    def mounts(self, placements: Sequence[VolumePlacement]) -> list[VolumeMount]:
        """Give what the guest is to mount, parents before what could lie in them."""
        found = [
            VolumeMount(
                device=self._devices[placement.slot],
                mount=placement.mount,
                fs=FileSystem.EXT4.value,
                read_only=placement.read_only,
            )
            for placement in placements
        ]
        return sorted(found, key=lambda mount: mount.mount)

    async def take(self, placements: Sequence[VolumePlacement]) -> TakenVolumes:
        """Open volumes for a machine whose placements they are; what is only read is made fit for that first.

        Raises:
            NotFound: one is gone.
            VolumeInUse: another machine has one, or an earlier VMM of this one still does.
            VolumeDamaged: one that is to be read cannot be mounted so.
        """
        taken = TakenVolumes()
        try:
            for placement in placements:
                attachment = await self._acquire(placement)
                try:
                    layout = self._layout(placement.volume_id, attachment.descriptor)
                except BaseException:
                    attachment.close()
                    raise
                taken.volumes.append(TakenVolume(placement=placement, attachment=attachment, layout=layout))
        except BaseException:
            taken.close()
            raise
        return taken

    async def sealer(self, sandbox_id: str) -> Sealer:
        """Give what looks at the volumes of a machine, whose placements must not change until it has."""
        placements = await self.placements(sandbox_id)
        return lambda: tuple(self._look(placement) for placement in placements)

    async def give_back(self, placement: VolumePlacement) -> None:
        """Forget that a volume is in a machine, whose VMM has let go of it.

        Raises:
            VolumeInUse: it has not; nothing was forgotten.
        """
        await self.attachments.release(placement.volume_id, placement.sandbox_id)
        await self._store.displace(placement.sandbox_id, placement.volume_id)

    async def clear(self, sandbox_id: str) -> None:
        """Give back all volumes of a machine that is no more; those made for one that never came up go with it.

        Raises:
            VolumeInUse: a VMM of it still has one.
        """
        for placement in await self.placements(sandbox_id):
            volume = await self._store.get(placement.volume_id)
            await self.give_back(placement)
            if volume.state is VolumeState.CREATING:
                await self.discard(volume.id, (VolumeState.CREATING,))

    async def discard(self, volume_id: str, expected: Collection[VolumeState]) -> None:
        """Delete a volume that is placed nowhere.

        Raises:
            Conflict: its state is not one of ``expected``.
            VolumeInUse: somebody has it all the same.
        """
        await self._store.transition(volume_id, expected, VolumeState.DELETING)
        await self.backend.delete(volume_id)
        await self._store.delete(volume_id, (VolumeState.DELETING,))

    async def agree(self, sandbox_id: str, machine: Machine | None) -> None:
        """Forget what a crash left half attached or half detached; what cannot be told stays as it is noted.

        Args:
            machine: the living one: what it holds is attached. Without one a sandbox keeps what it has a right to.
        """
        placements = await self.placements(sandbox_id)
        filled = await with_places(machine).filled_places() if placements and machine is not None else set()
        for placement in placements:
            try:
                if machine is not None and placement.slot not in filled:
                    await with_places(machine).detach_volume(placement.slot)
                    await self.give_back(placement)
                elif machine is None and not self._has_right(placement):
                    await self.give_back(placement)
                else:
                    continue
            except HearthError as error:
                log.warning("half an attachment stays", volume=placement.volume_id, error=str(error))
            else:
                log.info("half an attachment undone", sandbox=sandbox_id, volume=placement.volume_id)

    def _has_right(self, placement: VolumePlacement) -> bool:
        holders = self.attachments.holders(placement.volume_id)
        return any(holder.machine == placement.sandbox_id for holder in holders)

    async def _acquire(self, placement: VolumePlacement) -> Attachment:
        volume_id = placement.volume_id
        if placement.read_only and not self.attachments.holders(volume_id):
            await self._mend(volume_id)
        return await self.attachments.acquire(volume_id, placement.sandbox_id, mode_of(placement))

    def _layout(self, volume_id: str, descriptor: int) -> VolumeLayout:
        found = self.backend.layout(volume_id)
        base = -1 if found.base is None else os.open(found.base, os.O_RDONLY | os.O_CLOEXEC)
        return VolumeLayout(
            format=found.format,
            offset_bytes=found.offset_bytes,
            size_bytes=found.size_bytes,
            is_block=stat.S_ISBLK(os.fstat(descriptor).st_mode),
            base=base,
            base_format=found.base_format,
        )

    async def _mend(self, volume_id: str) -> None:
        """Replay the journal before the first who reads; the others find it done."""
        try:
            async with self.attachments.reserved(volume_id):
                await self.backend.check(volume_id)
        except VolumeInUse:
            log.debug("somebody came first; whether they go together is judged next", volume=volume_id)

    def _look(self, placement: VolumePlacement) -> VolumeSeal:
        descriptor = self.backend.open(placement.volume_id, AttachMode.READ_ONLY)
        try:
            return seal_of(placement, descriptor)
        finally:
            os.close(descriptor)


def mode_of(placement: VolumePlacement) -> AttachMode:
    """Tell how a machine has a volume."""
    return AttachMode.READ_ONLY if placement.read_only else AttachMode.READ_WRITE


def seal_of(placement: VolumePlacement, descriptor: int) -> VolumeSeal:
    """Look at an open volume: its size, and when it was written to where its storage tells that."""
    status = os.fstat(descriptor)
    return VolumeSeal(
        place=placement.slot,
        volume=placement.volume_id,
        mount=placement.mount,
        read_only=placement.read_only,
        size_bytes=os.lseek(descriptor, 0, os.SEEK_END),
        mtime_ns=status.st_mtime_ns if stat.S_ISREG(status.st_mode) else 0,
    )


def with_places(machine: Machine) -> VolumeMachine:
    """Give the machine as one that takes volumes.

    Raises:
        Conflict: this one does not.
    """
    if not isinstance(machine, VolumeMachine):
        raise no_places(machine.id)
    return machine


def no_places(what: str) -> Conflict:
    """Give the error for volumes where machines have no place for them."""
    return Conflict(
        "this engine's machines take no volumes", details=what, resolution="use the engine qemu", field="volumes"
    )
