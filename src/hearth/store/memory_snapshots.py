"""Named checkpoints in memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence

from hearth.model import Snapshot, SnapshotState
from hearth.quota import Amounts
from hearth.store import refusals
from hearth.store.base import FIRST_PAGE, Page, PageRequest
from hearth.store.memory_quotas import MemoryQuotas
from hearth.store.memory_tables import Tables, page_of
from hearth.store.quota_store import amounts_of_snapshot


class MemorySnapshots:
    """``SnapshotStore`` in memory."""

    def __init__(self, tables: Tables, quotas: MemoryQuotas) -> None:
        self._tables = tables
        self._quotas = quotas

    async def create(self, snapshot: Snapshot) -> None:
        self._check_name(snapshot)
        if snapshot.id in self._tables.snapshots:
            raise refusals.taken("snapshot", snapshot.name)
        if snapshot.owner not in self._tables.users:
            raise refusals.not_found("user", snapshot.owner)
        if snapshot.parent is not None:
            await self.get(snapshot.parent)
        self._quotas.enter(snapshot.owner, amounts_of_snapshot(snapshot))
        self._tables.snapshots[snapshot.id] = snapshot

    async def get(self, snapshot_id: str) -> Snapshot:
        try:
            return self._tables.snapshots[snapshot_id]
        except KeyError:
            raise refusals.not_found("snapshot", snapshot_id) from None

    async def resolve(self, owner: str | None, reference: str) -> Snapshot:
        visible = self._of(owner)
        for snapshot in visible:
            if snapshot.id == reference:
                return snapshot
        named = [snapshot for snapshot in visible if snapshot.name == reference and _is_named(snapshot)]
        if not named:
            raise refusals.not_found("snapshot", reference)
        if len(named) > 1:
            raise refusals.ambiguous("snapshot", reference)
        return named[0]

    async def list(
        self,
        owner: str | None,
        *,
        sandbox_id: str | None = None,
        states: Collection[SnapshotState] = (),
        page: PageRequest = FIRST_PAGE,
    ) -> Page[Snapshot]:
        fitting = (
            snapshot
            for snapshot in self._of(owner)
            if sandbox_id in (None, snapshot.sandbox_id) and (not states or snapshot.state in states)
        )
        return page_of(fitting, page, lambda snapshot: (snapshot.created_at, snapshot.id))

    async def children_of(self, snapshot_id: str) -> Sequence[Snapshot]:
        children = [snapshot for snapshot in self._tables.snapshots.values() if snapshot.parent == snapshot_id]
        return sorted(children, key=lambda snapshot: (snapshot.created_at, snapshot.id))

    async def transition(
        self,
        snapshot_id: str,
        expected: Collection[SnapshotState],
        new: SnapshotState,
        *,
        size_bytes: int | None = None,
    ) -> Snapshot:
        current = await self._in_state(snapshot_id, expected)
        changed = dataclasses.replace(
            current, state=new, size_bytes=current.size_bytes if size_bytes is None else size_bytes
        )
        self._check_name(changed)
        more = amounts_of_snapshot(changed).snapshot_mib - amounts_of_snapshot(current).snapshot_mib
        self._quotas.enter(current.owner, Amounts(snapshot_mib=more))
        self._tables.snapshots[snapshot_id] = changed
        return changed

    async def delete(self, snapshot_id: str, expected: Collection[SnapshotState]) -> None:
        await self._in_state(snapshot_id, expected)
        if children := await self.children_of(snapshot_id):
            raise refusals.needed(snapshot_id, [child.name for child in children])
        del self._tables.snapshots[snapshot_id]

    def _check_name(self, snapshot: Snapshot) -> None:
        for other in self._tables.snapshots.values():
            same_name = (other.owner, other.name) == (snapshot.owner, snapshot.name)
            if same_name and other.id != snapshot.id and _is_named(other) and _is_named(snapshot):
                raise refusals.taken("snapshot", snapshot.name)

    def _of(self, owner: str | None) -> Sequence[Snapshot]:
        return [snapshot for snapshot in self._tables.snapshots.values() if owner in (None, snapshot.owner)]

    async def _in_state(self, snapshot_id: str, expected: Collection[SnapshotState]) -> Snapshot:
        current = await self.get(snapshot_id)
        if current.state not in expected:
            raise refusals.wrong_state("snapshot", snapshot_id, current.state, expected)
        return current


def _is_named(snapshot: Snapshot) -> bool:
    """Tell whether it holds its name: one that is being deleted has given it free."""
    return snapshot.state is not SnapshotState.DELETING
