"""The QEMU engine: makes overlays, starts VMMs without rights of their own, finds and removes them again."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import structlog

from hearth.engine.base import BootFiles, Capabilities, EngineReport, MachinePlace, MachineSpec
from hearth.engine.qemu.accelerator import (
    Verdict,
    VerdictCache,
    kvm_obstacle,
    verdict_key,
)
from hearth.engine.qemu.command import Descriptor, QemuSpec
from hearth.engine.qemu.handover import opened
from hearth.engine.qemu.launcher import BINARY, DialerFor, Launcher
from hearth.engine.qemu.machine import QemuMachine
from hearth.engine.qemu.proof import prove_kvm
from hearth.engine.qemu.vmm_user import take_user
from hearth.errors import Conflict, HostUnfit, NoSpace
from hearth.host.cgroups import Cgroups
from hearth.host.process import CommandFailed, run
from hearth.host.tsc import tsc_khz
from hearth.model import Accelerator
from hearth.network.plan import Link

log = structlog.get_logger(__name__)

TOOL_TIMEOUT_S = 30.0


class QemuEngine:
    """Implements ``hearth.engine.base.Engine`` on QEMU, with KVM where it was proved to work and TCG otherwise."""

    name = "qemu"
    capabilities = Capabilities(isolated=True)

    def __init__(self, *, verdicts: Path, dialer_for: DialerFor, cgroups: Cgroups) -> None:
        self._verdicts = VerdictCache(verdicts)
        self._launcher = Launcher(dialer_for=dialer_for, cgroups=cgroups)
        self._proving = asyncio.Lock()
        self._version: tuple[int, str] | None = None

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
        """Make the machine's directory and its overlay over the shared root file system.

        Raises:
            Conflict: there is such a machine.
            NoSpace: the disk is full; nothing is left.
        """
        try:
            spec.directory.mkdir(mode=0o700, parents=True)
        except FileExistsError as error:
            raise Conflict("the machine's directory exists already", details=str(spec.directory)) from error
        overlay = spec.directory / "root.qcow2"
        try:
            await run(
                [
                    "qemu-img",
                    *("create", "-q", "-f", "qcow2", "-F", "raw"),
                    *("-b", str(spec.boot.rootfs), str(overlay)),
                ],
                timeout_s=TOOL_TIMEOUT_S,
            )
        except CommandFailed as error:
            await asyncio.to_thread(shutil.rmtree, spec.directory, ignore_errors=True)
            if "No space left" in error.output:
                raise NoSpace(
                    "no space for the machine's disk",
                    details=str(overlay),
                    resolution="free space in the data directory or choose another HEARTH_DATA",
                ) from error
            raise
        overlay.chmod(0o600)
        take_user(spec.directory)

    async def launch(self, spec: MachineSpec, link: Link | None) -> QemuMachine:
        """Start QEMU as a user of its own, with every file and socket handed over as a descriptor.

        Raises:
            EngineFailed: QEMU ended at once; ``details`` holds what it said.
        """
        report = await self.probe(spec.boot)
        if report.accelerator is None:
            raise HostUnfit("QEMU cannot run machines here", details=report.reason)
        qemu = QemuSpec(
            name=self._launcher.process_name(spec.id),
            accelerator=report.accelerator,
            cpus=spec.cpus,
            memory_mib=spec.memory_mib,
            tsc_khz=tsc_khz(),
            guest_cidr=f"{link.guest_ip}/{link.prefix_length}" if link else None,
            gateway=str(link.gateway) if link else None,
            mac=link.mac if link else None,
        )
        with opened(spec.boot, spec.directory / "root.qcow2") as descriptors:
            if link:
                descriptors[Descriptor.TAP] = link.tap_fd
            return await self._launcher.start(qemu, spec.place, link.namespace if link else None, descriptors)

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


def _modified_ns(path: str | None) -> int:
    return Path(path).stat().st_mtime_ns if path else 0
