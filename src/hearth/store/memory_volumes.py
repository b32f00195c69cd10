"""Volumes and their placements in memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence

from hearth.model import NamedVolume, VolumePlacement, VolumeState
from hearth.quota import Amounts
from hearth.store import refusals
from hearth.store.base import FIRST_PAGE, Page, PageRequest
from hearth.store.memory_quotas import MemoryQuotas
from hearth.store.memory_tables import Tables, page_of
from hearth.store.quota_store import amounts_of_volume


class MemoryVolumes:
    """``VolumeStore`` in memory."""

    def __init__(self, tables: Tables, quotas: MemoryQuotas) -> None:
        self._tables = tables
        self._quotas = quotas

    async def create(self, volume: NamedVolume) -> None:
        if volume.owner not in self._tables.users:
            raise refusals.not_found("user", volume.owner)
        names = {(known.owner, known.name) for known in self._tables.volumes.values()}
        if (volume.owner, volume.name) in names or volume.id in self._tables.volumes:
            raise refusals.taken("volume", volume.name, field="name")
        self._quotas.enter(volume.owner, amounts_of_volume(volume))
        self._tables.volumes[volume.id] = volume

    async def get(self, volume_id: str) -> NamedVolume:
        try:
            return self._tables.volumes[volume_id]
        except KeyError:
            raise refusals.not_found("volume", volume_id) from None

    async def resolve(self, owner: str | None, reference: str) -> NamedVolume:
        visible = self._of(owner)
        for volume in visible:
            if volume.id == reference:
                return volume
        named = [volume for volume in visible if volume.name == reference]
        if not named:
            raise refusals.not_found("volume", reference)
        if len(named) > 1:
            raise refusals.ambiguous("volume", reference)
        return named[0]

    async def list(
        self, owner: str | None, *, states: Collection[VolumeState] = (), page: PageRequest = FIRST_PAGE
    ) -> Page[NamedVolume]:
        fitting = (volume for volume in self._of(owner) if not states or volume.state in states)
        return page_of(fitting, page, lambda volume: (volume.created_at, volume.id))

    async def transition(
        self, volume_id: str, expected: Collection[VolumeState], new: VolumeState, *, size_mib: int | None = None
    ) -> NamedVolume:
        current = await self._in_state(volume_id, expected)
        changed = dataclasses.replace(current, state=new, size_mib=current.size_mib if size_mib is None else size_mib)
        self._quotas.enter(current.owner, Amounts(volume_mib=changed.size_mib - current.size_mib))
        self._tables.volumes[volume_id] = changed
        return changed

    async def delete(self, volume_id: str, expected: Collection[VolumeState]) -> None:
        await self._in_state(volume_id, expected)
        if placed := await self.sandboxes_of(volume_id):
            raise refusals.placed(volume_id, [placement.sandbox_id for placement in placed])
        del self._tables.volumes[volume_id]

    async def place(self, placement: VolumePlacement) -> None:
        await self.get(placement.volume_id)
        if placement.sandbox_id not in self._tables.sandboxes:
            raise refusals.not_found("sandbox", placement.sandbox_id)
        for known in await self.in_sandbox(placement.sandbox_id):
            if known.volume_id == placement.volume_id or known.slot == placement.slot:
                raise refusals.not_placeable(placement)
        self._tables.placements[placement.sandbox_id, placement.volume_id] = placement

    async def displace(self, sandbox_id: str, volume_id: str) -> None:
        self._tables.placements.pop((sandbox_id, volume_id), None)

    async def in_sandbox(self, sandbox_id: str) -> Sequence[VolumePlacement]:
        found = [each for each in self._tables.placements.values() if each.sandbox_id == sandbox_id]
        return sorted(found, key=lambda placement: placement.slot)

    async def sandboxes_of(self, volume_id: str) -> Sequence[VolumePlacement]:
        found = [each for each in self._tables.placements.values() if each.volume_id == volume_id]
        return sorted(found, key=lambda placement: (placement.attached_at, placement.sandbox_id))

    def _of(self, owner: str | None) -> Sequence[NamedVolume]:
        return [volume for volume in self._tables.volumes.values() if owner in (None, volume.owner)]

    async def _in_state(self, volume_id: str, expected: Collection[VolumeState]) -> NamedVolume:
        current = await self.get(volume_id)
        if current.state not in expected:
            raise refusals.wrong_state("volume", volume_id, current.state, expected)
        return current
