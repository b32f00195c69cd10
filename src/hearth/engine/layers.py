"""What keeps a forest of snapshots valid: who lies over whose disk and memory, so that deleting keeps what others need.

Pure: it is given manifests, as ``hearth.engine.snapshot.load_all`` reads them, and answers with ids.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter

from hearth.engine.manifest import Layer, LayerKind, Manifest, refused


@dataclass(frozen=True, kw_only=True)
class Inventory:
    """All there is of one data directory.

    Args:
        manifests: of the snapshots, by id.
        unreadable: snapshots whose manifest could not be read: nobody knows what they need.
        machines: the snapshots each machine stands on (its disk's origin, what it was restored from), by its id.
    """

    manifests: Mapping[str, Manifest]
    unreadable: Collection[str] = ()
    machines: Mapping[str, Collection[str]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Users:
    """Who needs a snapshot, at first or second hand, in alphabetical order; ``unknown`` may or may not."""

    snapshots: tuple[str, ...] = ()
    machines: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.snapshots or self.machines or self.unknown)


def direct_needs(manifest: Manifest) -> frozenset[str]:
    """Give the ids of the snapshots whose directories this one cannot be started without."""
    layers = {layer.id for layer in manifest.disk.layers if layer.kind is LayerKind.SNAPSHOT}
    return frozenset(layers if manifest.memory.base is None else {*layers, manifest.memory.base.id})


def needed_images(manifests: Iterable[Manifest]) -> frozenset[str]:
    """Give the ids of the images that disks lie over."""
    return frozenset(
        layer.id for manifest in manifests for layer in manifest.disk.layers if layer.kind is LayerKind.IMAGE
    )


def closure(ids: Iterable[str], manifests: Mapping[str, Manifest]) -> frozenset[str]:
    """Give these snapshots with all they need, at first hand and through others; ids without a manifest included."""
    found: set[str] = set()
    waiting = list(ids)
    while waiting:
        snapshot_id = waiting.pop()
        if snapshot_id not in found:
            found.add(snapshot_id)
            manifest = manifests.get(snapshot_id)
            waiting += direct_needs(manifest) if manifest else ()
    return frozenset(found)


def dependents_first(manifests: Mapping[str, Manifest]) -> list[str]:
    """Put snapshots in an order in which each comes before what it needs: the order to delete them in.

    Raises:
        SnapshotRefused: some need each other in a circle; ``details`` name them.
    """
    needs = {snapshot_id: sorted(direct_needs(manifest)) for snapshot_id, manifest in sorted(manifests.items())}
    try:
        order = list(TopologicalSorter(needs).static_order())
    except CycleError as error:
        circle = [str(snapshot_id) for snapshot_id in error.args[1]]
        # graphlib walks from what is needed to who needs it.
        raise refused(circle[-1], f"it needs itself: {' → '.join(reversed(circle))}") from error
    return [snapshot_id for snapshot_id in reversed(order) if snapshot_id in manifests]


def users_of(snapshot_id: str, inventory: Inventory) -> Users:
    """Tell who else needs a snapshot."""
    others = set(inventory.manifests) - {snapshot_id}
    unknown = set(inventory.unreadable) - {snapshot_id}
    return Users(
        snapshots=tuple(sorted(other for other in others if snapshot_id in closure([other], inventory.manifests))),
        machines=tuple(
            sorted(
                machine
                for machine, stands_on in inventory.machines.items()
                if snapshot_id in closure(stands_on, inventory.manifests)
            )
        ),
        unknown=tuple(sorted(unknown)),
    )


def deletable(unwanted: Collection[str], inventory: Inventory) -> list[str]:
    """Tell which of the snapshots nobody wants can be deleted now, in the order to delete them in.

    What a wanted snapshot or a machine needs stays, and so does what those need in turn. As long as an unreadable one
    has to stay, so does everything: it may need any of them.

    Raises:
        SnapshotRefused: some need each other in a circle.
    """
    manifests = inventory.manifests
    order = dependents_first(manifests)
    stands_on = {snapshot_id for ids in inventory.machines.values() for snapshot_id in ids}
    kept = closure(({*manifests, *inventory.unreadable} - set(unwanted)) | stands_on, manifests)
    if kept & set(inventory.unreadable):
        return []
    doomed = set(inventory.unreadable)
    readable = [snapshot_id for snapshot_id in order if snapshot_id not in kept]
    over_doomed = [snapshot_id for snapshot_id in readable if closure([snapshot_id], manifests) & doomed]
    return [*over_doomed, *sorted(doomed), *(snapshot_id for snapshot_id in readable if snapshot_id not in over_doomed)]


def broken(manifests: Mapping[str, Manifest]) -> dict[str, str]:
    """Tell in words which snapshots stand on something that is missing or not what it was."""
    found = {snapshot_id: _defects(manifest, manifests) for snapshot_id, manifest in manifests.items()}
    return {snapshot_id: "; ".join(defects) for snapshot_id, defects in found.items() if defects}


def _defects(manifest: Manifest, manifests: Mapping[str, Manifest]) -> list[str]:
    defects = [
        words
        for layer in manifest.disk.layers
        if layer.kind is LayerKind.SNAPSHOT and (words := _layer_defect(layer, manifests))
    ]
    if base := manifest.memory.base:
        below = manifests.get(base.id)
        if below is None:
            defects.append(f"its memory is relative to {base.id}, which is missing")
        elif below.memory.base is not None or below.full_memory != base:
            defects.append(f"its memory is relative to {base.id}, whose memory is not what it was")
    return defects


def _layer_defect(layer: Layer, manifests: Mapping[str, Manifest]) -> str | None:
    below = manifests.get(layer.id)
    if below is None:
        return f"its disk lies over {layer.id}, which is missing"
    record = below.files.get(layer.file)
    if record is None or record.block_hash != layer.checksum:
        return f"its disk lies over {layer.file} of {layer.id}, which is not what it was"
    return None
