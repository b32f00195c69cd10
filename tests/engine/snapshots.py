"""Small snapshots for tests: two pages' worth of everything that real ones have."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hearth.engine.manifest import (
    MIB,
    Disk,
    FileRecord,
    Layer,
    LayerKind,
    Manifest,
    Memory,
    MemoryBase,
    MemoryKind,
    OwnDisk,
    RootFs,
    Stamp,
)
from hearth.engine.memory_image import write_diff, write_full
from hearth.engine.snapshot import DISK, MEMORY_DIFF, MEMORY_FULL, STATE, publish, record, stage, write_manifest
from hearth.host.memory import Extent

PAGE = 4096
IMAGE_SHA256 = hashlib.sha256(b"image").hexdigest()
STAMP = Stamp(
    engine="qemu",
    vmm_version="7.2.22",
    machine=hashlib.sha256(b"shape").hexdigest(),
    accelerator="tcg",
    cpu_model="Nehalem",
    kernel="kernel-0123456789abcdef",
    agent="agent-0123456789abcdef",
)
ROOTFS_LAYER = Layer(kind=LayerKind.IMAGE, id="rootfs-0123456789abcdef", file="rootfs.ext4", checksum=IMAGE_SHA256)
EMPTY = FileRecord(size_bytes=0, block_hash=hashlib.sha256(b"").hexdigest())


def manifest(snapshot_id: str, files: dict[str, FileRecord], **changes: Any) -> Manifest:
    """Give the manifest of a small template with these files; ``changes`` replace fields."""
    values: dict[str, Any] = {
        "id": snapshot_id,
        "created_at": datetime(2026, 1, 1, tzinfo=UTC),
        "cpus": 1,
        "memory_mib": 1,
        "stamp": STAMP,
        "rootfs": RootFs(id=ROOTFS_LAYER.id, sha256=IMAGE_SHA256),
        "memory": Memory(kind=MemoryKind.FULL, file=MEMORY_FULL),
        "disk": Disk(layers=(ROOTFS_LAYER,), file=DISK),
        "files": files,
        "drives": ("root",),
    }
    return Manifest(**(values | changes))


def plain(snapshot_id: str, **changes: Any) -> Manifest:
    """Give the manifest of a template that has no files in any directory."""
    files = {MEMORY_FULL: FileRecord(size_bytes=MIB, block_hash=EMPTY.block_hash), DISK: EMPTY}
    return manifest(snapshot_id, **({"files": files} | changes))


def make_template(root: Path, snapshot_id: str) -> Path:
    """Publish a small snapshot with full memory and a disk of its own."""
    staging = stage(root / snapshot_id)
    memory = write_full(staging / MEMORY_FULL, MIB, [Extent(2 * PAGE, 2 * PAGE)], b"a" * 2 * PAGE)
    (staging / STATE).write_bytes(b"registers")
    (staging / DISK).write_bytes(b"disk" * 1000)
    files = {MEMORY_FULL: memory, STATE: record(staging / STATE), DISK: record(staging / DISK)}
    write_manifest(staging, manifest(snapshot_id, files))
    publish(staging, root / snapshot_id)
    return root / snapshot_id


def make_stopped(root: Path, snapshot_id: str, base: MemoryBase, disk: Path) -> Path:
    """Publish a small snapshot of a stopped machine: a diff, and a disk that stays where it is."""
    staging = stage(root / snapshot_id)
    memory = write_diff(staging / MEMORY_DIFF, MIB, [Extent(0, PAGE)], b"b" * PAGE)
    (staging / STATE).write_bytes(b"registers")
    made = manifest(
        snapshot_id,
        {MEMORY_DIFF: memory, STATE: record(staging / STATE)},
        memory=Memory(kind=MemoryKind.DIFF, file=MEMORY_DIFF, base=base),
        disk=Disk(layers=(ROOTFS_LAYER,), stays=OwnDisk.of(disk)),
    )
    write_manifest(staging, made)
    publish(staging, root / snapshot_id)
    return root / snapshot_id
