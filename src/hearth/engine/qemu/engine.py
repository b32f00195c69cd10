"""The QEMU engine: makes overlays, starts VMMs without rights of their own, finds and removes them again."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path

import msgspec
import structlog

from hearth.engine.base import BootFiles, Capabilities, EngineReport, MachinePlace, MachineSpec, VolumePlace
from hearth.engine.budget import Budget, Turn, host_share
from hearth.engine.manifest import MIB, Stamp
from hearth.engine.memory_image import STREAMED_BYTES
from hearth.engine.qemu.accelerator import Verdict, VerdictCache, host_cpu_model, kvm_obstacle, verdict_key
from hearth.engine.qemu.capture import QemuCapture, take
from hearth.engine.qemu.command import EMULATED_CPU, Descriptor, QemuSpec, shape
from hearth.engine.qemu.confinement import Confinement, RootsMeans
from hearth.engine.qemu.counter import steady_tsc_khz
from hearth.engine.qemu.disk import MAX_LAYERS, OVERLAY, Layers, size_of
from hearth.engine.qemu.handover import Files, opened
from hearth.engine.qemu.launcher import BINARY, DialerFor, Launcher
from hearth.engine.qemu.machine import QemuMachine
from hearth.engine.qemu.memory_bases import MemoryBases
from hearth.engine.qemu.merging import Chain, export
from hearth.engine.qemu.overlay import create_overlay
from hearth.engine.qemu.proof import prove_kvm
from hearth.engine.qemu.restoring import QemuWaiting
from hearth.engine.qemu.slots import all_slots
from hearth.engine.qemu.vmm_user import take_user
from hearth.engine.snapshot import STATE, StoredSnapshot, load, require_fit, require_same_disk, verify_file
from hearth.errors import Conflict, HostUnfit
from hearth.host.cgroups import Cgroups
from hearth.host.process import run
from hearth.host.threads import on_own_thread
from hearth.model import Accelerator
from hearth.network.plan import Link

log = structlog.get_logger(__name__)

TOOL_TIMEOUT_S = 30.0
STREAMED_SHARE = 4
"""This part of what captures may hold is for machines that stay paused: whoever makes room never waits for forks."""
PLACES = tuple(
    VolumePlace(number=slot.number, device=slot.guest_device, read_only=slot.read_only) for slot in all_slots()
)


class QemuEngine:
    """Implements ``hearth.engine.base.Engine`` on QEMU, with KVM where it was proved to work and TCG otherwise."""

    name = "qemu"
    capabilities = Capabilities(isolated=True, sleep=True, disk_size=True, volume_places=PLACES)

    def __init__(
        self,
        *,
        verdicts: Path,
        dialer_for: DialerFor,
        cgroups: Cgroups,
        max_layers: int = MAX_LAYERS,
        confinement: Confinement | None = None,
        capture_bytes: int | None = None,
    ) -> None:
        capture_bytes = capture_bytes or host_share()
        self._streamed = Budget(capture_bytes // STREAMED_SHARE)
        self._held = Budget(capture_bytes - self._streamed.total_bytes)
        self._max_layers = min(max_layers, MAX_LAYERS)
        self._verdicts = VerdictCache(verdicts)
        self._launcher = Launcher(
            dialer_for=dialer_for,
            cgroups=cgroups,
            capturer=self,
            confinement=confinement or RootsMeans(),
        )
        self._bases = MemoryBases()
        self._layers = Layers()
        self._proving = asyncio.Lock()
        self._version: tuple[int, str] | None = None
        self._counter: int | None = None

    async def version(self) -> str:
        """Give QEMU's version, such as ``7.2.22``; asked again only when the binary has changed.

        Raises:
            HostUnfit: QEMU is not installed.
        """
        path = shutil.which(BINARY)
        stamp = _modified_ns(path)
        if self._version is None or self._version[0] != stamp:
            line = (await run([BINARY, "--version"], timeout_s=TOOL_TIMEOUT_S)).stdout.decode().splitlines()[0]
            self._version = (stamp, line.partition("version ")[2].split(" ")[0])
        return self._version[1]

    async def probe(self, boot: BootFiles) -> EngineReport:
        """Tell the accelerator; the first call on a host proves it by booting ``boot`` and keeps the verdict."""
        version = await self.version()
        async with self._proving:
            verdict = await self._judge(boot, version)
        return EngineReport(engine=self.name, version=version, accelerator=verdict.accelerator, reason=verdict.reason)

    async def _judge(self, boot: BootFiles, version: str) -> Verdict:
        if obstacle := kvm_obstacle():
            return Verdict(accelerator=Accelerator.TCG, reason=obstacle)
        key = verdict_key(boot, version)
        if cached := self._verdicts.load(key):
            return cached
        self._verdicts.directory.mkdir(parents=True, exist_ok=True)
        how = await prove_kvm(self._launcher, boot, self._verdicts.directory)
        if how is None:
            verdict = Verdict(accelerator=Accelerator.KVM, reason="KVM booted the guest kernel")
        else:
            verdict = Verdict(accelerator=Accelerator.TCG, reason=f"/dev/kvm is there but cannot run a guest: {how}")
        log.info("accelerator judged", accelerator=verdict.accelerator, reason=verdict.reason)
        self._verdicts.save(key, verdict)
        return verdict

    async def prepare(self, spec: MachineSpec) -> None:
        """Make the machine's directory and its overlay over what its disk starts from.

        Raises:
            Conflict: there is such a machine.
            NoSpace: the disk is full; nothing is left.
        """
        try:
            spec.directory.mkdir(mode=0o700, parents=True)
        except FileExistsError as error:
            raise Conflict("the machine's directory exists already", details=str(spec.directory)) from error
        try:
            await asyncio.to_thread(create_overlay, spec.directory / OVERLAY, size_of(spec))
        except BaseException:
            await asyncio.to_thread(shutil.rmtree, spec.directory, ignore_errors=True)
            raise
        take_user(spec.directory)

    async def launch(self, spec: MachineSpec, link: Link | None) -> QemuMachine:
        """Start QEMU as a user of its own, with every file and socket handed over as a descriptor.

        Raises:
            EngineFailed: QEMU ended at once; ``details`` holds what it said.
            SnapshotRefused: the disk it starts from is damaged.
        """
        qemu = await self._describe(spec)
        files = await on_own_thread("verify disk", lambda: self._disk_files(spec))
        files = replace(files, kernel=spec.boot.kernel, initramfs=spec.boot.initramfs)
        return await self._start(qemu, spec, link, files, {})

    async def wait_for(self, spec: MachineSpec, snapshot: Path, link: Link | None) -> QemuWaiting:
        """Start QEMU on the memory of a snapshot, verified, to wait for the rest.

        Raises:
            SnapshotRefused: the snapshot is damaged, or was made by another QEMU, machine, kernel or agent.
            EngineFailed: QEMU ended at once.
        """
        qemu = replace(await self._describe(spec), restored=True)
        stamp = await self._stamp(spec)
        stored = await on_own_thread("verify snapshot", lambda: _verified(snapshot, spec, stamp))
        files = await on_own_thread("verify disk", lambda: self._disk_files(spec))
        files = replace(files, state=stored.directory / STATE)
        base = await asyncio.to_thread(load, stored.base) if stored.base is not None else stored
        async with self._bases.open(base, keep=base.disk is not None) as memory:
            machine = await self._start(qemu, spec, link, files, {Descriptor.MEMORY: memory})
        return QemuWaiting(machine=machine, directory=spec.directory, snapshot=stored)

    def turn(self, spec: MachineSpec, *, stays_paused: bool) -> AbstractAsyncContextManager[Turn]:
        """Wait until there is memory for a capture; see ``SleepingMachine.turn``."""
        size = spec.memory_mib * MIB
        if stays_paused:
            return self._streamed.turn(min(size, STREAMED_BYTES), stays_paused=True)
        return self._held.turn(size, stays_paused=False)

    async def take(
        self, machine: QemuMachine, spec: MachineSpec, staging: Path, /, *, with_disk: bool, turn: Turn | None
    ) -> QemuCapture:
        """Take what must not change meanwhile of a paused machine; see ``SleepingMachine.capture``."""
        stamp = await self._stamp(spec)
        return await take(machine, spec, stamp, staging, with_disk=with_disk, max_layers=self._max_layers, turn=turn)

    def _disk_files(self, spec: MachineSpec) -> Files:
        return Files(rootfs=spec.boot.rootfs, layers=self._layers.paths(spec), overlay=spec.directory / OVERLAY)

    async def _describe(self, spec: MachineSpec) -> QemuSpec:
        report = await self.probe(spec.boot)
        if report.accelerator is None:
            raise HostUnfit("QEMU cannot run machines here", details=report.reason)
        return QemuSpec(
            name=self._launcher.process_name(spec.id),
            accelerator=report.accelerator,
            cpus=spec.cpus,
            memory_mib=spec.memory_mib,
            tsc_khz=await self._counter_khz(),
            wire=self._launcher.wire,
        )

    async def _counter_khz(self) -> int | None:
        if self._counter is None:
            self._counter = await asyncio.to_thread(steady_tsc_khz, self._verdicts.directory)
        return self._counter

    async def _stamp(self, spec: MachineSpec) -> Stamp:
        qemu = await self._describe(spec)
        return Stamp(
            engine=self.name,
            vmm_version=await self.version(),
            machine=shape(qemu),
            accelerator=qemu.accelerator,
            cpu_model=host_cpu_model() if qemu.accelerator is Accelerator.KVM else EMULATED_CPU,
            kernel=spec.boot.kernel_id,
            agent=spec.boot.agent_id,
        )

    async def _start(
        self, qemu: QemuSpec, spec: MachineSpec, link: Link | None, files: Files, descriptors: Mapping[int, int]
    ) -> QemuMachine:
        qemu = replace(qemu, layers=len(files.layers))
        if link is not None:
            cidr = f"{link.guest_ip}/{link.prefix_length}"
            qemu = replace(qemu, guest_cidr=cidr, gateway=str(link.gateway), mac=link.mac)
            descriptors = {**descriptors, Descriptor.TAP: link.tap_fd}
        with opened(files) as own:
            namespace = link.namespace if link is not None else None
            return await self._launcher.start(qemu, spec.place, namespace, {**own, **descriptors})

    async def adopt(self, place: MachinePlace) -> QemuMachine | None:
        """Find the living QEMU of a machine and take over its sockets; None when there is none.

        Raises:
            EngineFailed: one lives and does not answer now; it was left as it is, ask again later.
        """
        return await self._launcher.adopt(place)

    async def end(self, place: MachinePlace) -> None:
        """End whatever VMM is this machine's and remove its cgroup; its disk stays."""
        await self._launcher.end(place)

    async def remove(self, place: MachinePlace) -> None:
        """End the machine and delete its directory."""
        await self.end(place)
        await asyncio.to_thread(shutil.rmtree, place.directory, ignore_errors=True)

    async def leftovers(self) -> set[str]:
        """Tell the ids of machines that have a cgroup, with or without a directory."""
        return self._launcher.grouped()

    async def fingerprint(self, spec: MachineSpec) -> str:
        """Hash what a snapshot of such a machine depends on: QEMU, the machine's shape, kernel and agent."""
        stamp = await self._stamp(spec)
        text = "\0".join([*msgspec.structs.astuple(stamp), str(spec.cpus), str(spec.memory_mib)])
        return hashlib.sha256(text.encode()).hexdigest()

    async def preload(self, snapshot: Path) -> None:
        """Load the memory of a snapshot that others start from, verified, for the next clone."""
        async with self._bases.open(await asyncio.to_thread(load, snapshot), keep=True):
            log.debug("memory preloaded", snapshot=snapshot.name)

    async def export_disk(self, spec: MachineSpec, target: Path, *, own: bool) -> None:
        """Write a whole disk as one raw file, durably; see ``SleepingEngine.export_disk``."""
        layers = await on_own_thread("verify disk", lambda: self._layers.paths(spec))
        overlay = [spec.directory / OVERLAY] if own else []
        await export(Chain(rootfs=spec.boot.rootfs, layers=[*layers, *overlay], size_bytes=size_of(spec)), target)

    async def forget(self, snapshot_id: str) -> None:
        """Let go of what is kept of a snapshot in memory; machines that run on it keep what they need."""
        self._bases.drop(snapshot_id)

    async def close(self) -> None:
        """Let go of everything kept in memory; machines are left as they are."""
        self._bases.close()


def _verified(snapshot: Path, spec: MachineSpec, stamp: Stamp) -> StoredSnapshot:
    """See that a snapshot is whole and fits the machine; its memory is verified where it is read."""
    stored = load(snapshot)
    manifest = stored.manifest
    rootfs = spec.boot.rootfs_sha256
    require_fit(manifest, stamp=stamp, cpus=spec.cpus, memory_mib=spec.memory_mib, rootfs=rootfs)
    if manifest.disk.stays is not None:
        require_same_disk(manifest, spec.directory / OVERLAY)
    verify_file(stored, STATE)
    return stored


def _modified_ns(path: str | None) -> int:
    return Path(path).stat().st_mtime_ns if path else 0
