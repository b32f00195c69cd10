"""What is taken of a paused machine: the devices' state, the pages it wrote, a copy of its disk.

Only what must be taken while the CPUs stand still happens in ``take``; writing and hashing follow in ``store``.
"""

from __future__ import annotations

import asyncio
import contextlib
import mmap
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import structlog

from hearth.engine.base import MachineSpec, RunState
from hearth.engine.manifest import (
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
    VolumeRecord,
)
from hearth.engine.memory_image import write_diff, write_full
from hearth.engine.qemu.command import DRIVES
from hearth.engine.qemu.disk import OVERLAY, frozen_root, layers_of
from hearth.engine.qemu.machine import QemuMachine
from hearth.engine.qemu.memory_map import guest_memory
from hearth.engine.qemu.merging import Chain, merge
from hearth.engine.qemu.overlay import copy_overlay
from hearth.engine.snapshot import DISK, MEMORY_DIFF, MEMORY_FULL, STATE, load, record, write_manifest
from hearth.errors import Conflict
from hearth.host.memory import Extent, read_extents, written
from hearth.host.threads import on_own_thread

log = structlog.get_logger(__name__)

STATE_SET = 1000
"""Number of the descriptor set that the state goes through; those of the command line are small."""
SAVE_TIMEOUT_S = 30.0


@dataclass(frozen=True, kw_only=True)
class Pages:
    """Memory as it was: ``data`` holds the extents in a row; what is between them is ``base``'s, or zero."""

    extents: Sequence[Extent]
    data: mmap.mmap
    base: MemoryBase | None


@dataclass(frozen=True, kw_only=True)
class _Below:
    """What a machine lies over: the memory its VMM maps, by the snapshot's id, its origin's, and the disks."""

    mapped: str | None
    base: MemoryBase | None
    layers: tuple[Layer, ...]


@dataclass(frozen=True, kw_only=True)
class QemuCapture:
    """Implements ``hearth.engine.base.Capture``; used once."""

    staging: Path
    spec: MachineSpec
    stamp: Stamp
    pages: Pages
    layers: tuple[Layer, ...]
    stays: OwnDisk | None
    max_layers: int

    async def store(self) -> None:
        """Write memory and manifest, durably; of too many layers the disk's copy takes over what they hold."""
        memory, file = await on_own_thread("store memory", self._write_memory)
        layers = self.layers
        frozen = [layer for layer in layers if layer.kind is LayerKind.SNAPSHOT]
        if self.stays is None and len(frozen) >= self.max_layers:
            root = frozen_root(self.spec)
            paths = [*(root / layer.id / layer.file for layer in frozen), self.staging / DISK]
            await merge(Chain(rootfs=self.spec.boot.rootfs, layers=paths))
            layers = tuple(layer for layer in layers if layer not in frozen)
            log.info("layers merged", machine=self.spec.id, layers=len(paths))
        await on_own_thread("store snapshot", lambda: self._store(memory, file, layers))

    def _store(self, memory: FileRecord, file: str, layers: tuple[Layer, ...]) -> None:
        files: dict[str, FileRecord] = {file: memory, STATE: record(self.staging / STATE)}
        if self.stays is None:
            files[DISK] = record(self.staging / DISK)
        write_manifest(self.staging, self._manifest(file, files, layers))

    def _write_memory(self) -> tuple[FileRecord, str]:
        size = self.spec.memory_mib * 1024 * 1024
        name, write = (MEMORY_FULL, write_full) if self.pages.base is None else (MEMORY_DIFF, write_diff)
        try:
            return write(self.staging / name, size, self.pages.extents, self.pages.data), name
        finally:
            # After an error its traceback holds views of it still; then it is freed with them.
            with contextlib.suppress(BufferError):
                self.pages.data.close()

    def _manifest(self, memory: str, files: Mapping[str, FileRecord], layers: tuple[Layer, ...]) -> Manifest:
        base = self.pages.base
        boot = self.spec.boot
        return Manifest(
            id=_final_name(self.staging),
            created_at=datetime.now(UTC),
            cpus=self.spec.cpus,
            memory_mib=self.spec.memory_mib,
            stamp=self.stamp,
            rootfs=RootFs(id=boot.rootfs_id, sha256=boot.rootfs_sha256),
            memory=Memory(kind=MemoryKind.DIFF if base else MemoryKind.FULL, file=memory, base=base),
            disk=Disk(layers=layers, file=None if self.stays else DISK, stays=self.stays),
            files=dict(files),
            drives=DRIVES,
            volumes=tuple(VolumeRecord(**asdict(seal)) for seal in self.spec.volumes),
        )


async def take(
    machine: QemuMachine, spec: MachineSpec, stamp: Stamp, staging: Path, *, with_disk: bool, max_layers: int
) -> QemuCapture:
    """Take what must not change meanwhile; see ``SleepingMachine.capture``.

    Args:
        max_layers: so many frozen disks, this one included, may lie below a machine's own.
    """
    if await machine.run_state() is not RunState.PAUSED:
        raise Conflict("only a paused machine can be captured", details=spec.id, resolution="pause it first")
    overlay = spec.directory / OVERLAY
    address = await machine.memory_address()
    # While QEMU writes its state: the guest stands still until all of this is done.
    copying = asyncio.create_task(_copy_disk(overlay, staging, wanted=with_disk), name=f"copy disk of {spec.id}")
    looking = asyncio.create_task(asyncio.to_thread(_look, machine.pid, address, spec), name=f"look at {spec.id}")
    try:
        await _save_state(machine, staging / STATE)
        found = await looking
        pages = await on_own_thread(
            "read memory", lambda: _read_pages(machine.pid, address, spec, found), discard=_drop
        )
    except BaseException:
        copying.cancel()
        await asyncio.gather(copying, looking, return_exceptions=True)
        raise
    await copying
    return QemuCapture(
        staging=staging,
        spec=spec,
        stamp=stamp,
        pages=pages,
        layers=found.layers,
        stays=None if with_disk else OwnDisk.of(overlay),
        max_layers=max_layers,
    )


async def _save_state(machine: QemuMachine, path: Path) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        name = await machine.monitor.hand_over(descriptor, STATE_SET)
        try:
            # "live" stands for a machine that goes on elsewhere; without it the disks stay ours (qapi/migration.json).
            arguments = {"filename": name, "live": False}
            await machine.monitor.execute("xen-save-devices-state", arguments, timeout_s=SAVE_TIMEOUT_S)
        finally:
            await machine.monitor.take_back(STATE_SET)
            machine.lent_sets.add(STATE_SET)
    finally:
        os.close(descriptor)


async def _copy_disk(overlay: Path, staging: Path, *, wanted: bool) -> None:
    if wanted:
        await on_own_thread("copy disk", lambda: copy_overlay(overlay, staging / DISK))


def _look(pid: int, address: int, spec: MachineSpec) -> _Below:
    base = load(spec.origin).manifest.full_memory if spec.origin is not None else None
    return _Below(mapped=guest_memory(pid, address).base, base=base, layers=layers_of(spec))


def _read_pages(pid: int, address: int, spec: MachineSpec, below: _Below) -> Pages:
    size = spec.memory_mib * 1024 * 1024
    mapped, base = below.mapped, below.base
    if mapped is None or (base is not None and base.id == mapped):
        extents = written(pid, address, size)
    else:
        # It started from a memory that nobody keeps: what it did not write is only to be had from the machine itself.
        extents, base = [Extent(0, size)], None
    return Pages(extents=extents, data=read_extents(pid, address, extents), base=base if mapped else None)


def _drop(pages: Pages) -> None:
    pages.data.close()


def _final_name(staging: Path) -> str:
    return staging.name.split(".", 1)[0]
