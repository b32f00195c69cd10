"""What a machine's disk consists of: an image's root file system, frozen disks of snapshots, its own overlay on top."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hearth.engine.base import MachineSpec
from hearth.engine.manifest import Layer, LayerKind, Manifest, refused
from hearth.engine.snapshot import StoredSnapshot, load, verify_file

OVERLAY = "root.qcow2"
MAX_LAYERS = 16
"""Each generation of forks adds one; longer chains make every first read of a block dearer."""


def layers_of(spec: MachineSpec) -> tuple[Layer, ...]:
    """Tell what lies below the machine's own overlay, lowest first, with the checksums it is pinned to.

    Raises:
        SnapshotRefused: its origin is damaged, or has no disk for others.
    """
    if spec.origin is None:
        boot = spec.boot
        image = Layer(kind=LayerKind.IMAGE, id=boot.rootfs_id, file=boot.rootfs.name, checksum=boot.rootfs_sha256)
        return (image,)
    origin = load(spec.origin)
    return (*origin.manifest.disk.layers, _frozen(origin))


def size_of(spec: MachineSpec) -> int:
    """Tell the size of a machine's disk in bytes."""
    return max(spec.disk_bytes, spec.boot.rootfs.stat().st_size)


def frozen_root(spec: MachineSpec) -> Path:
    """Say where the snapshots lie whose frozen disks are below the machine's own."""
    if spec.origin is None:
        raise AssertionError("a machine without an origin lies over no snapshot")
    return spec.origin.parent


class Layers:
    """The frozen disks that machines' overlays lie over, each read and compared with its checksum once."""

    def __init__(self) -> None:
        self._verified: set[tuple[Path, int, int]] = set()

    def paths(self, spec: MachineSpec) -> Sequence[Path]:
        """Give the read-only qcow2 files between the root file system and the overlay, lowest first. Blocking.

        Raises:
            SnapshotRefused: one is missing or damaged, or they were made over another root file system.
        """
        if spec.origin is None:
            return ()
        origin = load(spec.origin)
        _check_image(origin.manifest, spec)
        layers = [layer for layer in layers_of(spec) if layer.kind is LayerKind.SNAPSHOT]
        if len(layers) > MAX_LAYERS:
            raise refused(origin.id, f"its disk has {len(layers)} layers; at most {MAX_LAYERS} work")
        return [self._verify(spec.origin.parent / layer.id, layer) for layer in layers]

    def _verify(self, directory: Path, layer: Layer) -> Path:
        snapshot = load(directory)
        path = directory / layer.file
        expected = snapshot.manifest.files.get(layer.file)
        if expected is None or expected.block_hash != layer.checksum:
            raise refused(snapshot.id, f"{layer.file} is not the one that others lie over")
        try:
            status = path.stat()
        except OSError as error:
            raise refused(snapshot.id, f"{layer.file} cannot be read: {error.strerror}") from error
        seen = (path, status.st_size, status.st_mtime_ns)
        if seen not in self._verified:
            verify_file(snapshot, layer.file)
            self._verified.add(seen)
        return path


def _check_image(manifest: Manifest, spec: MachineSpec) -> None:
    if manifest.rootfs.sha256 != spec.boot.rootfs_sha256:
        found = f"{spec.boot.rootfs_id} ({spec.boot.rootfs_sha256[:12]})"
        wanted = f"{manifest.rootfs.id} ({manifest.rootfs.sha256[:12]})"
        raise refused(manifest.id, f"its disk lies over the image {wanted}, not over {found}")


def _frozen(origin: StoredSnapshot) -> Layer:
    file = origin.manifest.disk.file
    if file is None:
        raise refused(origin.id, "its disk stayed with its machine")
    checksum = origin.manifest.files[file].block_hash
    return Layer(kind=LayerKind.SNAPSHOT, id=origin.id, file=file, checksum=checksum)
