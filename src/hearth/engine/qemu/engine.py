"""The QEMU engine: makes overlays, starts VMMs without rights of their own, finds and removes them again."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import structlog

from hearth.engine.base import BootFiles, Capabilities, EngineReport, MachinePlace, MachineSpec
from hearth.engine.console import Console
from hearth.engine.qemu.accelerator import (
    KNOWN_LINE,
    PROOF_DEADLINE_S,
    Verdict,
    VerdictCache,
    kvm_groups,
    kvm_obstacle,
    verdict_key,
)
from hearth.engine.qemu.command import Descriptor, QemuSpec, build
from hearth.engine.qemu.handover import VMM_LOG, connect, listening, log_file, opened
from hearth.engine.qemu.machine import QemuMachine
from hearth.engine.qemu.qmp import Qmp
from hearth.engine.qemu.vmm_user import take_user, user_of
from hearth.errors import Conflict, EngineFailed, HostUnfit, NoSpace
from hearth.guest.dial import Dialer
from hearth.host.cgroups import Cgroups
from hearth.host.process import CommandFailed, run
from hearth.host.processes import find_by_arguments
from hearth.host.spawn import Process, adopt, identify, setpriv_prefix, spawn
from hearth.host.tsc import tsc_khz
from hearth.model import Accelerator
from hearth.network.plan import Link

log = structlog.get_logger(__name__)

BINARY = "qemu-system-x86_64"
VMM_OVERHEAD_MIB = 256
"""What QEMU needs beside the guest's memory: its own 20 MiB, 64 MiB of translated code, device and disk buffers."""
VMM_TASKS_MAX = 64
TOOL_TIMEOUT_S = 30.0
ADOPT_TIMEOUT_S = 2.0


@dataclass(frozen=True, kw_only=True)
class _Sockets:
    """The listening ends that QEMU gets, so that nobody polls for files."""

    qmp: Path
    console: Path


class QemuEngine:
    """Implements ``hearth.engine.base.Engine`` on QEMU, with KVM where it was proved to work and TCG otherwise."""

    name = "qemu"
    capabilities = Capabilities(isolated=True)

    def __init__(self, *, verdicts: Path, dialer_for: Callable[[str], Dialer], cgroups: Cgroups) -> None:
        self._verdicts = VerdictCache(verdicts)
        self._dialer_for = dialer_for
        self._cgroups = cgroups
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
        how = await self._prove_kvm(boot)
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
            name=_process_name(spec.id),
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
            return await self._start(qemu, spec.directory, spec.id, descriptors)

    async def _start(
        self, qemu: QemuSpec, directory: Path, machine_id: str, descriptors: dict[int, int]
    ) -> QemuMachine:
        sockets = _Sockets(qmp=directory / "qmp.sock", console=directory / "console.sock")
        with listening(sockets.qmp) as qmp, listening(sockets.console) as console, log_file(directory) as output:
            handed = {**descriptors, Descriptor.QMP: qmp.fileno(), Descriptor.CONSOLE: console.fileno()}
            process = spawn(
                [*_unprivileged(directory), *build(BINARY, qemu)],
                descriptors=handed,
                output=output,
            )
        self._confine(qemu, machine_id, process.pid)
        return await self._attach(machine_id, process, sockets, directory / VMM_LOG)

    def _confine(self, qemu: QemuSpec, machine_id: str, pid: int) -> None:
        cgroup = self._cgroups.create(
            _process_name(machine_id),
            memory_max_bytes=(qemu.memory_mib + VMM_OVERHEAD_MIB) * 1024 * 1024,
            pids_max=VMM_TASKS_MAX + qemu.cpus,
        )
        if cgroup is not None:
            cgroup.add(pid)

    async def _attach(self, machine_id: str, process: Process, sockets: _Sockets, output: Path) -> QemuMachine:
        console = Console(connect(sockets.console))
        try:
            monitor = await Qmp.open(connect(sockets.qmp))
        except BaseException as error:
            process.kill()
            how = await process.wait()
            await console.close()
            if isinstance(error, EngineFailed):
                said = _tail(output)
                raise EngineFailed("QEMU did not start", details=f"{how}: {said}") from error
            raise
        return QemuMachine(machine_id, process, monitor, console, self._dialer_for(machine_id))

    async def adopt(self, place: MachinePlace) -> QemuMachine | None:
        """Find the living QEMU of a machine and take over its sockets; None when there is none that answers."""
        pids = find_by_arguments(["-name", _process_name(place.id)])
        if len(pids) != 1:
            return None
        process = _watch(pids[0])
        if process is None:
            return None
        try:
            monitor = await Qmp.open(connect(place.directory / "qmp.sock"), timeout_s=ADOPT_TIMEOUT_S)
            console = Console(connect(place.directory / "console.sock"))
        except (OSError, EngineFailed) as error:
            log.warning("a VMM could not be adopted", machine=place.id, error=str(error))
            process.close()
            return None
        return QemuMachine(place.id, process, monitor, console, self._dialer_for(place.id))

    async def remove(self, place: MachinePlace) -> None:
        """End whatever VMM runs under this machine's name and delete its directory and cgroup."""
        for pid in find_by_arguments(["-name", _process_name(place.id)]):
            if process := _watch(pid):
                process.kill()
                await process.wait()
        self._cgroups.remove(_process_name(place.id))
        await asyncio.to_thread(shutil.rmtree, place.directory, ignore_errors=True)

    async def _prove_kvm(self, boot: BootFiles) -> str | None:
        """Boot the guest kernel under KVM to init's first line; None when it got there, else how it failed."""
        self._verdicts.directory.mkdir(parents=True, exist_ok=True)
        directory = Path(tempfile.mkdtemp(prefix="proof-", dir=self._verdicts.directory))
        take_user(directory)
        qemu = QemuSpec(
            name=f"hearth-proof-{os.getpid()}",
            accelerator=Accelerator.KVM,
            cpus=1,
            memory_mib=256,
            tsc_khz=None,
            disk=False,
        )
        try:
            with opened(boot, None) as descriptors:
                machine = await self._start(qemu, directory, qemu.name, descriptors)
        except EngineFailed as error:
            return error.details
        else:
            return await _watch_proof(machine)
        finally:
            self._cgroups.remove(_process_name(qemu.name))
            shutil.rmtree(directory, ignore_errors=True)


async def _watch_proof(machine: QemuMachine) -> str | None:
    try:
        async with asyncio.timeout(PROOF_DEADLINE_S):
            if await machine.console.wait_for(KNOWN_LINE):
                return None
            return f"the VMM ended early ({machine.console.tail(1) or 'no output'})"
    except TimeoutError:
        return f"no sign of init within {PROOF_DEADLINE_S:g} s"
    finally:
        await machine.kill()


def _modified_ns(path: str | None) -> int:
    return Path(path).stat().st_mtime_ns if path else 0


def _tail(path: Path) -> str:
    return path.read_text(errors="replace").strip()[-2000:]


def _unprivileged(directory: Path) -> list[str]:
    user = user_of(directory)
    return setpriv_prefix(user, user, groups=kvm_groups()) if os.geteuid() == 0 else []


def _watch(pid: int) -> Process | None:
    identity = identify(pid)
    return adopt(identity) if identity is not None else None


def _process_name(machine_id: str) -> str:
    return f"hearth-{machine_id}"
