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
from hearth.engine.qemu.handover import connect, listening, log_file, opened, read_log
from hearth.engine.qemu.machine import QemuMachine
from hearth.engine.qemu.qmp import GREETING_TIMEOUT_S, Qmp
from hearth.engine.qemu.vmm_user import is_vmm_user, take_user, user_of
from hearth.errors import Conflict, EngineFailed, HearthError, HostUnfit, NoSpace
from hearth.guest.dial import Dialer
from hearth.host import namespaces
from hearth.host.cgroups import Cgroups
from hearth.host.process import CommandFailed, run
from hearth.host.processes import find_by_arguments, owner_of
from hearth.host.spawn import Child, Process, adopt, identify, setpriv_prefix, spawn
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
            name=self._process_name(spec.id),
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
            return await self._start(qemu, spec.place, link.namespace if link else None, descriptors)

    async def _start(
        self, qemu: QemuSpec, place: MachinePlace, namespace: str | None, descriptors: dict[int, int]
    ) -> QemuMachine:
        directory = place.directory
        sockets = _sockets(place)
        with listening(sockets.qmp) as qmp, listening(sockets.console) as console, log_file(directory) as output:
            handed = {**descriptors, Descriptor.QMP: qmp.fileno(), Descriptor.CONSOLE: console.fileno()}
            command = [*_unprivileged(directory), *build(BINARY, qemu)]

            def start() -> Child:
                return spawn(command, descriptors=handed, output=output)

            # Inside the machine's own namespace: a VMM that was broken out of finds no network there either.
            process = await namespaces.enter(namespace, start, discard=_abandon) if namespace else start()
        self._confine(qemu, place.id, process.pid)
        return await self._attach(place, process, sockets)

    def _confine(self, qemu: QemuSpec, machine_id: str, pid: int) -> None:
        cgroup = self._cgroups.create(
            machine_id,
            memory_max_bytes=(qemu.memory_mib + VMM_OVERHEAD_MIB) * 1024 * 1024,
            pids_max=VMM_TASKS_MAX + qemu.cpus,
        )
        if cgroup is not None:
            cgroup.add(pid)

    async def _attach(self, place: MachinePlace, process: Process, sockets: _Sockets) -> QemuMachine:
        try:
            return await self._converse(place, process, sockets, GREETING_TIMEOUT_S)
        except BaseException as error:
            process.kill()
            how = await process.wait()
            if isinstance(error, EngineFailed):
                said = read_log(place.directory)
                raise EngineFailed("QEMU did not start", details=f"{how}: {said}") from error
            raise

    async def _converse(
        self, place: MachinePlace, process: Process, sockets: _Sockets, timeout_s: float
    ) -> QemuMachine:
        console = Console(connect(sockets.console))
        try:
            monitor = await Qmp.open(connect(sockets.qmp), timeout_s=timeout_s)
        except BaseException:
            await console.close()
            raise
        return QemuMachine(place.id, process, monitor, console, self._dialer_for(place.id))

    async def adopt(self, place: MachinePlace) -> QemuMachine | None:
        """Find the living QEMU of a machine and take over its sockets; None when there is none.

        Raises:
            EngineFailed: one lives and does not answer now; it was left as it is, ask again later.
        """
        pids = self._living(place)
        process = _watch(pids[0]) if len(pids) == 1 else None
        if process is None:
            return None
        try:
            return await self._converse(place, process, _sockets(place), ADOPT_TIMEOUT_S)
        except (OSError, HearthError) as error:
            process.close()
            raise EngineFailed(
                "the machine's VMM lives but does not answer",
                details=f"{place.id}, process {pids[0]}: {error}",
                resolution="try again; if it stays so, destroy the sandbox",
            ) from error
        except BaseException:
            process.close()
            raise

    async def end(self, place: MachinePlace) -> None:
        """End whatever VMM is this machine's and remove its cgroup; its disk stays."""
        for pid in self._living(place):
            if process := _watch(pid):
                process.kill()
                await process.wait()
        self._cgroups.remove(place.id)

    async def remove(self, place: MachinePlace) -> None:
        """End the machine and delete its directory."""
        await self.end(place)
        await asyncio.to_thread(shutil.rmtree, place.directory, ignore_errors=True)

    async def leftovers(self) -> set[str]:
        """Tell the ids of machines that have a cgroup, with or without a directory."""
        return self._cgroups.list()

    def _living(self, place: MachinePlace) -> list[int]:
        """Find this machine's processes: by name or cgroup, and only those of its own user.

        A name on a command line can be forged by anybody, a cgroup may not be to be had, and a copy of the data
        directory has the same users; what bears this directory's tag *and* belongs to this machine's user is ours.
        """
        pids = {*find_by_arguments(["-name", self._process_name(place.id)]), *self._cgroups.members(place.id)}
        owner = user_of(place.directory)
        return sorted(pid for pid in pids if is_vmm_user(owner_of(pid), owner))

    def _process_name(self, machine_id: str) -> str:
        return f"hearth-{self._cgroups.tag}-{machine_id}"

    async def _prove_kvm(self, boot: BootFiles) -> str | None:
        """Boot the guest kernel under KVM to init's first line; None when it got there, else how it failed."""
        self._verdicts.directory.mkdir(parents=True, exist_ok=True)
        directory = Path(tempfile.mkdtemp(prefix="proof-", dir=self._verdicts.directory))
        take_user(directory)
        place = MachinePlace(id=f"proof-{os.getpid()}", directory=directory)
        namespace = f"hearth-{self._cgroups.tag}-{place.id}"
        qemu = QemuSpec(
            name=self._process_name(place.id),
            accelerator=Accelerator.KVM,
            cpus=1,
            memory_mib=256,
            tsc_khz=None,
            disk=False,
        )
        try:
            await namespaces.create(namespace, _nothing, discard=_forget)
            with opened(boot, None) as descriptors:
                machine = await self._start(qemu, place, namespace, descriptors)
        except EngineFailed as error:
            return error.details
        else:
            return await _watch_proof(machine)
        finally:
            await self.remove(place)
            await namespaces.delete(namespace)


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


def _unprivileged(directory: Path) -> list[str]:
    user = user_of(directory)
    return setpriv_prefix(user, user, groups=kvm_groups()) if user and os.geteuid() == 0 else []


def _watch(pid: int) -> Process | None:
    identity = identify(pid)
    return adopt(identity) if identity is not None else None


def _abandon(process: Child) -> None:
    """End a process that nobody waits for any more, and bury it."""
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED)
    process.close()


def _sockets(place: MachinePlace) -> _Sockets:
    return _Sockets(qmp=place.directory / "qmp.sock", console=place.directory / "console.sock")


def _nothing() -> None:
    """An empty namespace is all that is wanted."""


def _forget(_: None) -> None:
    """Nothing was made."""
