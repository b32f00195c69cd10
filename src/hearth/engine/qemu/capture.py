"""What is taken of a paused machine: the devices' state, the pages it wrote, a copy of its disk.

Only what must be taken while the CPUs stand still happens in ``take``; writing and hashing follow in ``store``. Of a
machine that stays paused the pages are read as they are written, so that no more than a few of them are ever held.
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

from hearth.engine.base import MachineDied, MachineSpec, RunState
from hearth.engine.budget import Turn
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
from hearth.engine.memory_image import write_all, write_diff, write_full
from hearth.engine.qemu.command import DRIVES
from hearth.engine.qemu.disk import OVERLAY, frozen_root, layers_of, size_of
from hearth.engine.qemu.machine import QemuMachine
from hearth.engine.qemu.memory_map import guest_memory
from hearth.engine.qemu.merging import Chain, merge
from hearth.engine.qemu.overlay import copy_overlay
from hearth.engine.snapshot import DISK, MEMORY_DIFF, MEMORY_FULL, STATE, load, record, write_manifest
from hearth.errors import Conflict, EngineFailed
from hearth.host.files import new_file
from hearth.host.memory import Extent, read_extents, total_bytes, written
from hearth.host.spawn import Identity, identify
from hearth.host.threads import on_own_thread

log = structlog.get_logger(__name__)

STATE_SET = 1000
"""Number of the descriptor set that the state goes through; those of the command line are small."""
STATE_NAME = "hearth-state"
STATE_MAX_BYTES = 64 << 20
"""Far more than the devices of any machine say of themselves (5 to 370 kB)."""
SAVE_TIMEOUT_S = 30.0


@dataclass(frozen=True, kw_only=True)
class _Source:
    """The memory of a paused VMM, at ``address`` of its own."""

    vmm: Identity
    address: int

    def read(self, extents: Sequence[Extent]) -> mmap.mmap:
        """Copy the extents into one buffer.

        Raises:
            MachineDied: the VMM has ended.
        """
        try:
            return read_extents(self.vmm.pid, self.address, extents)
        except OSError as error:
            raise _ended(str(error)) from error

    def require_same(self) -> None:
        """See that all that was read before was read from that process, whose number may go to another at its end.

        Raises:
            MachineDied: the VMM has ended.
        """
        if identify(self.vmm.pid) != self.vmm:
            raise _ended(f"process {self.vmm.pid}")


@dataclass(frozen=True, kw_only=True)
class Pages:
    """Memory as it was: what is between the extents is ``base``'s, or zero.

    ``data`` holds the extents in a row; None where they are still to be read from ``source``.
    """

    extents: Sequence[Extent]
    source: _Source
    data: mmap.mmap | None
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
    state: bytes
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
            await merge(Chain(rootfs=self.spec.boot.rootfs, layers=paths, size_bytes=size_of(self.spec)))
            layers = tuple(layer for layer in layers if layer not in frozen)
            log.info("layers merged", machine=self.spec.id, layers=len(paths))
        await on_own_thread("store snapshot", lambda: self._store(memory, file, layers))

    def _store(self, memory: FileRecord, file: str, layers: tuple[Layer, ...]) -> None:
        with new_file(self.staging / STATE) as descriptor:
            write_all(descriptor, self.state)
        files: dict[str, FileRecord] = {file: memory, STATE: record(self.staging / STATE)}
        if self.stays is None:
            files[DISK] = record(self.staging / DISK)
        write_manifest(self.staging, self._manifest(file, files, layers))

    def _write_memory(self) -> tuple[FileRecord, str]:
        size = self.spec.memory_mib * 1024 * 1024
        name, write = (MEMORY_FULL, write_full) if self.pages.base is None else (MEMORY_DIFF, write_diff)
        pages = self.pages
        if pages.data is None:
            written_file = write(self.staging / name, size, pages.extents, pages.source.read)
            pages.source.require_same()
            return written_file, name
        try:
            return write(self.staging / name, size, pages.extents, pages.data), name
        finally:
            # After an error its traceback holds views of it still; then it is freed with them.
            with contextlib.suppress(BufferError):
                pages.data.close()

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
    machine: QemuMachine,
    spec: MachineSpec,
    stamp: Stamp,
    staging: Path,
    *,
    with_disk: bool,
    max_layers: int,
    turn: Turn | None = None,
) -> QemuCapture:
    """Take what must not change meanwhile; see ``SleepingMachine.capture``.

    Args:
        max_layers: so many frozen disks, this one included, may lie below a machine's own.
        turn: the memory this may hold, and whether the machine stays paused.
    """
    if await machine.run_state() is not RunState.PAUSED:
        raise Conflict("only a paused machine can be captured", details=spec.id, resolution="pause it first")
    overlay = spec.directory / OVERLAY
    source = _Source(vmm=machine.identity, address=await machine.memory_address())
    # While QEMU writes its state: the guest stands still until all of this is done.
    copying = asyncio.create_task(_copy_disk(overlay, staging, wanted=with_disk), name=f"copy disk of {spec.id}")
    looking = asyncio.create_task(asyncio.to_thread(_look, source, spec), name=f"look at {spec.id}")
    try:
        state = await _save_state(machine)
        found = await looking
        later = turn is not None and turn.stays_paused
        pages = await on_own_thread("read memory", lambda: _take_pages(source, spec, found, later=later), discard=_drop)
        if turn is not None:
            turn.needs(total_bytes(pages.extents))
    except BaseException:
        copying.cancel()
        await asyncio.gather(copying, looking, return_exceptions=True)
        raise
    await copying
    return QemuCapture(
        staging=staging,
        spec=spec,
        stamp=stamp,
        state=state,
        pages=pages,
        layers=found.layers,
        stays=None if with_disk else OwnDisk.of(overlay),
        max_layers=max_layers,
    )


async def _save_state(machine: QemuMachine) -> bytes:
    """Have QEMU write the devices' state where it can write nothing else, and take a copy.

    It keeps its descriptor until the CPUs run again, longer if it was broken out of: a file of the snapshot that it had
    been given it could change after that was verified.
    """
    memory = os.memfd_create(STATE_NAME, os.MFD_CLOEXEC)
    try:
        # Of a set QEMU takes a descriptor of exactly the access it wants (monitor/fds.c).
        descriptor = os.open(f"/proc/self/fd/{memory}", os.O_WRONLY | os.O_CLOEXEC)
        try:
            name = await machine.monitor.hand_over(descriptor, STATE_SET)
        finally:
            os.close(descriptor)
        try:
            # "live" stands for a machine that goes on elsewhere; without it the disks stay ours (qapi/migration.json).
            arguments = {"filename": name, "live": False}
            await machine.monitor.execute("xen-save-devices-state", arguments, timeout_s=SAVE_TIMEOUT_S)
        finally:
            await machine.monitor.take_back(STATE_SET)
            machine.lent_sets.add(STATE_SET)
        return _content(memory)
    finally:
        os.close(memory)


def _content(memory: int) -> bytes:
    content = os.pread(memory, STATE_MAX_BYTES + 1, 0)
    if not 0 < len(content) <= STATE_MAX_BYTES:
        raise EngineFailed("the VMM's state has an impossible size", details=f"{len(content)} bytes or more")
    return content


async def _copy_disk(overlay: Path, staging: Path, *, wanted: bool) -> None:
    if wanted:
        await on_own_thread("copy disk", lambda: copy_overlay(overlay, staging / DISK))


def _look(source: _Source, spec: MachineSpec) -> _Below:
    base = load(spec.origin).manifest.full_memory if spec.origin is not None else None
    return _Below(mapped=guest_memory(source.vmm.pid, source.address).base, base=base, layers=layers_of(spec))


def _take_pages(source: _Source, spec: MachineSpec, below: _Below, *, later: bool) -> Pages:
    size = spec.memory_mib * 1024 * 1024
    mapped, base = below.mapped, below.base
    if mapped is None or (base is not None and base.id == mapped):
        extents = written(source.vmm.pid, source.address, size)
    else:
        # It started from a memory that nobody keeps: what it did not write is only to be had from the machine itself.
        extents, base = [Extent(0, size)], None
    data = None if later else source.read(extents)
    return Pages(extents=extents, source=source, data=data, base=base if mapped else None)


def _drop(pages: Pages) -> None:
    if pages.data is not None:
        pages.data.close()


def _ended(details: str) -> MachineDied:
    return MachineDied("the machine ended while its memory was read", details=details)


def _final_name(staging: Path) -> str:
    return staging.name.split(".", 1)[0]
