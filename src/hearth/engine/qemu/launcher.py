"""Starts VMMs without rights of their own, finds them again and takes over their sockets."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from hearth.engine.base import MachinePlace
from hearth.engine.console import Console
from hearth.engine.qemu.command import Descriptor, QemuSpec, Wire, build
from hearth.engine.qemu.confinement import Bounds, Confinement
from hearth.engine.qemu.handover import connect, listening, read_log
from hearth.engine.qemu.machine import Capturer, QemuMachine
from hearth.engine.qemu.qmp import GREETING_TIMEOUT_S, Qmp
from hearth.engine.qemu.vmm_user import is_vmm_user, user_of
from hearth.errors import EngineFailed, HearthError
from hearth.guest.dial import Dialer
from hearth.host.cgroups import Cgroups
from hearth.host.processes import find_by_arguments, owner_of, words_after
from hearth.host.spawn import Process, adopt, identify

BINARY = "qemu-system-x86_64"
VMM_OVERHEAD_MIB = 256
"""What QEMU needs beside the guest's memory: its own 20 MiB, 64 MiB of translated code, device and disk buffers."""
VMM_TASKS_MAX = 64
ADOPT_TIMEOUT_S = 2.0


class DialerFor(Protocol):
    """Gives the way to the agent of a machine by its id; ``answers`` says that its guest is up already."""

    def __call__(self, machine_id: str, /, *, answers: bool = False) -> Dialer: ...


@dataclass(frozen=True, kw_only=True)
class _Sockets:
    """The listening ends that QEMU gets, so that nobody polls for files."""

    qmp: Path
    console: Path


class Launcher:
    """The VMM processes of one daemon.

    Args:
        dialer_for: gives the way to the agent of a machine by its id.
        cgroups: confine the processes and mark them as this daemon's.
        capturer: what the machines take their snapshots with.
        confinement: how the processes are kept from this host.
    """

    def __init__(
        self, *, dialer_for: DialerFor, cgroups: Cgroups, capturer: Capturer, confinement: Confinement
    ) -> None:
        self._confinement = confinement
        self._dialer_for = dialer_for
        self._capturer = capturer
        self._cgroups = cgroups

    def process_name(self, machine_id: str) -> str:
        """Name a machine's process: what ``living`` looks for."""
        return f"{self.prefix}{machine_id}"

    @property
    def wire(self) -> Wire:
        """What the other end of the guests' wires is."""
        return self._confinement.wire

    @property
    def prefix(self) -> str:
        """How the names of all processes and namespaces of this daemon begin."""
        return f"hearth-{self._cgroups.tag}-"

    async def start(
        self, qemu: QemuSpec, place: MachinePlace, namespace: str | None, descriptors: dict[int, int]
    ) -> QemuMachine:
        """Start QEMU as a user of its own, with every file and socket handed over as a descriptor.

        Raises:
            EngineFailed: it ended at once; ``details`` holds what it said.
        """
        sockets = _sockets(place)
        bounds = Bounds(memory_mib=memory_limit_mib(qemu), tasks=VMM_TASKS_MAX + qemu.cpus)
        with listening(sockets.qmp) as qmp, listening(sockets.console) as console:
            handed = {**descriptors, Descriptor.QMP: qmp.fileno(), Descriptor.CONSOLE: console.fileno()}
            command = build(BINARY, qemu)
            process = await self._confinement.start(command, place.directory, namespace, handed, bounds)
        self._confine(bounds, place.id, process.pid)
        return await self._attach(place, process, sockets, answers=qemu.restored)

    def _confine(self, bounds: Bounds, machine_id: str, pid: int) -> None:
        cgroup = self._cgroups.create(
            machine_id, memory_max_bytes=bounds.memory_mib * 1024 * 1024, pids_max=bounds.tasks
        )
        if cgroup is not None:
            cgroup.add(pid)

    async def _attach(self, place: MachinePlace, process: Process, sockets: _Sockets, *, answers: bool) -> QemuMachine:
        try:
            return await self._converse(place, process, sockets, GREETING_TIMEOUT_S, answers=answers)
        except BaseException as error:
            process.kill()
            how = await process.wait()
            if isinstance(error, EngineFailed):
                said = read_log(place.directory)
                raise EngineFailed("QEMU did not start", details=f"{how}: {said}") from error
            raise

    async def _converse(
        self, place: MachinePlace, process: Process, sockets: _Sockets, timeout_s: float, *, answers: bool
    ) -> QemuMachine:
        console = Console(connect(sockets.console))
        try:
            monitor = await Qmp.open(connect(sockets.qmp), timeout_s=timeout_s)
        except BaseException:
            await console.close()
            raise
        dialer = self._dialer_for(place.id, answers=answers)
        limit = functools.partial(self._cgroups.memory_limit_hits, place.id)
        return QemuMachine(place.id, process, monitor, console, dialer, self._capturer, limit)

    async def adopt(self, place: MachinePlace) -> QemuMachine | None:
        """Find the living QEMU of a machine and take over its sockets; None when there is none.

        Raises:
            EngineFailed: one lives and does not answer now; it was left as it is, ask again later.
        """
        pids = self.living(place)
        process = _watch(pids[0]) if len(pids) == 1 else None
        if process is None:
            return None
        try:
            return await self._converse(place, process, _sockets(place), ADOPT_TIMEOUT_S, answers=True)
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
        """End whatever VMM is this machine's and remove its cgroup."""
        for pid in self.living(place):
            if process := _watch(pid):
                process.kill()
                await process.wait()
        self._cgroups.remove(place.id)

    def grouped(self) -> set[str]:
        """Tell the ids of machines that have a cgroup, or a process, with or without a directory."""
        named = {name.removeprefix(self.prefix) for name in words_after("-name", beginning=self.prefix)}
        return named | self._cgroups.list()

    def living(self, place: MachinePlace) -> list[int]:
        """Find this machine's processes: by name or cgroup, and only those of its own user.

        A name on a command line can be forged by anybody, a cgroup may not be to be had, and a copy of the data
        directory has the same users; what bears this directory's tag *and* belongs to this machine's user is ours.
        """
        pids = {*find_by_arguments(["-name", self.process_name(place.id)]), *self._cgroups.members(place.id)}
        owner = user_of(place.directory)
        return sorted(pid for pid in pids if is_vmm_user(owner_of(pid), owner))


def memory_limit_mib(qemu: QemuSpec) -> int:
    """Tell how much memory a VMM and its guest may take together.

    A clone's may be twice the guest's: where the shared memory has a hole, the kernel makes a page of zeros in it for
    all before it copies that for the writer, and charges both to who came first.
    """
    return qemu.memory_mib * (2 if qemu.restored else 1) + VMM_OVERHEAD_MIB


def _watch(pid: int) -> Process | None:
    identity = identify(pid)
    return adopt(identity) if identity is not None else None


def _sockets(place: MachinePlace) -> _Sockets:
    return _Sockets(qmp=place.directory / "qmp.sock", console=place.directory / "console.sock")
