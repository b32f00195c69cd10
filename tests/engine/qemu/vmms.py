"""Real VMMs that no guest need have booted in: what is in their memory, tests put there themselves."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.boot import boot_files
from tests.contract.test_engines import TAG

from hearth.config import DataDirectory
from hearth.engine.base import MachinePlace, MachineSpec
from hearth.engine.budget import Turn
from hearth.engine.qemu.engine import QemuEngine
from hearth.engine.qemu.machine import QemuMachine
from hearth.engine.snapshot import StoredSnapshot, publish, stage, verify
from hearth.host.cgroups import detect
from hearth.host.identity import new_sandbox_id
from hearth.host.memory import Extent, read_extents, write_extents
from hearth.network.machine import MachineNetwork

MEMORY_MIB = 128
MEMORY_BYTES = MEMORY_MIB << 20


@dataclass(frozen=True, kw_only=True)
class Vmms:
    """An engine and a place for its machines."""

    engine: QemuEngine
    data: DataDirectory

    @asynccontextmanager
    async def prepared(self, origin: Path | None = None) -> AsyncIterator[MachineSpec]:
        """Give a machine with a disk and without a VMM."""
        machine_id = new_sandbox_id()
        place = MachinePlace(id=machine_id, directory=self.data.machine(machine_id))
        spec = MachineSpec(place=place, cpus=1, memory_mib=MEMORY_MIB, boot=boot_files(), origin=origin)
        await self.engine.prepare(spec)
        try:
            yield spec
        finally:
            await self.engine.remove(spec.place)

    @asynccontextmanager
    async def booting(self) -> AsyncIterator[tuple[QemuMachine, MachineSpec]]:
        """Give a machine that was stopped as soon as it had begun."""
        async with self.prepared() as spec:
            machine = await self.engine.launch(spec, None)
            try:
                await machine.pause()
                yield machine, spec
            finally:
                await machine.kill()

    @asynccontextmanager
    async def restored(self, snapshot: Path, spec: MachineSpec) -> AsyncIterator[QemuMachine]:
        """Give a machine that stands where the snapshot was taken."""
        waiting = await self.engine.wait_for(spec, snapshot, None)
        try:
            yield await waiting.load()
        finally:
            await waiting.kill()

    @asynccontextmanager
    async def clone(self, template: Path) -> AsyncIterator[tuple[QemuMachine, MachineSpec]]:
        """Give a machine of its own on a template, which stands still."""
        async with self.prepared(template) as spec, self.restored(template, spec) as machine:
            yield machine, spec

    async def snapshot(
        self, machine: QemuMachine, spec: MachineSpec, name: str, *, with_disk: bool, turn: Turn | None = None
    ) -> StoredSnapshot:
        """Publish what is taken of a paused machine, which stays paused."""
        final = self.data.snapshots / name
        staging = await asyncio.to_thread(stage, final)
        capture = await machine.capture(spec, staging, with_disk=with_disk, turn=turn)
        await capture.store()
        await asyncio.to_thread(publish, staging, final)
        return await asyncio.to_thread(verify, final)


async def poke(machine: QemuMachine, offset: int, content: bytes) -> None:
    """Write into a machine's memory as its guest would, whole pages."""
    address = await machine.memory_address()
    write_extents(machine.pid, address, [Extent(offset, len(content))], bytearray(content))


async def peek(machine: QemuMachine, offset: int = 0, size: int = MEMORY_BYTES) -> bytes:
    """Give what is in a machine's memory."""
    with read_extents(machine.pid, await machine.memory_address(), [Extent(offset, size)]) as found:
        return found[:size]


@asynccontextmanager
async def vmms(*, capture_bytes: int | None = None) -> AsyncIterator[Vmms]:
    """Make a data directory for VMMs; all that were started there end with it."""
    with tempfile.TemporaryDirectory(prefix="hearth-vmm-") as root:
        data = DataDirectory(root=Path(root))
        data.machines.mkdir()
        data.snapshots.mkdir(mode=0o700)
        dialer_for = MachineNetwork(TAG).dialer
        engine = QemuEngine(
            verdicts=data.verdicts, dialer_for=dialer_for, cgroups=detect(TAG), capture_bytes=capture_bytes
        )
        try:
            yield Vmms(engine=engine, data=data)
        finally:
            await engine.close()


@asynccontextmanager
async def template_of(house: Vmms, content: bytes = b"") -> AsyncIterator[StoredSnapshot]:
    """Take a snapshot that others may start from of a machine that hardly ran, and keep its memory loaded.

    Args:
        content: put to the start of its memory, whole pages.
    """
    async with house.booting() as (machine, spec):
        if content:
            await poke(machine, 0, content)
        stored = await house.snapshot(machine, spec, "tpl-first", with_disk=True)
    await house.engine.preload(stored.directory)
    yield stored
    await house.engine.forget(stored.id)
