"""The development engine: the real agent as a process of this host, without a machine around it.

It isolates nothing and says so; the daemon refuses it unless it was asked for by name. It serves where only the
protocols between CLI, daemon and agent matter.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sys
from pathlib import Path

from hearth.engine.base import BootFiles, Capabilities, EngineReport, MachineEnd, MachinePlace, MachineSpec
from hearth.errors import Conflict
from hearth.guest.dial import UnixDialer
from hearth.host.processes import find_by_arguments, owner_of
from hearth.host.spawn import Process, adopt, identify, spawn
from hearth.network.plan import Link
from hearth.version import VERSION

CONTROL_SOCKET = "agent.sock"
FORWARD_SOCKET = "forward.sock"


class LocalMachine:
    """An agent process. Implements ``hearth.engine.base.Machine``."""

    def __init__(self, machine_id: str, process: Process, directory: Path) -> None:
        self._id = machine_id
        self._process = process
        self._dialer = UnixDialer(control=directory / CONTROL_SOCKET, forward=directory / FORWARD_SOCKET)

    @property
    def id(self) -> str:
        return self._id

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def dialer(self) -> UnixDialer:
        return self._dialer

    async def wait(self) -> MachineEnd:
        end = await self._process.wait()
        return MachineEnd(how=f"the agent's process {end}", status=end.status, signal=end.signal)

    async def kill(self) -> None:
        # A machine takes everything in it along. While its agent stands still no child's number can become another's.
        self._process.kill(signal.SIGSTOP)
        _kill_children(self._process.pid)
        self._process.kill()
        await self._process.wait()
        await self.release()

    async def release(self) -> None:
        self._process.close()


class LocalEngine:
    """Implements ``hearth.engine.base.Engine`` with processes."""

    name = "local"
    capabilities = Capabilities(isolated=False, network=False)

    async def probe(self, boot: BootFiles) -> EngineReport:
        del boot
        return EngineReport(
            engine=self.name,
            version=VERSION,
            accelerator=None,
            reason="commands run on this host itself, without isolation: for development only",
        )

    async def prepare(self, spec: MachineSpec) -> None:
        try:
            spec.directory.mkdir(mode=0o700, parents=True)
        except FileExistsError as error:
            raise Conflict("the machine's directory exists already", details=str(spec.directory)) from error

    async def launch(self, spec: MachineSpec, link: Link | None) -> LocalMachine:
        del link
        output = os.open(spec.directory / "agent.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            process = spawn(_command(spec.directory), descriptors={}, output=output)
        finally:
            os.close(output)
        return LocalMachine(spec.id, process, spec.directory)

    async def adopt(self, place: MachinePlace) -> LocalMachine | None:
        for pid in find_by_arguments(_listen_words(place.directory)):
            identity = identify(pid) if owner_of(pid) == os.geteuid() else None
            process = adopt(identity) if identity is not None else None
            if process is not None:
                return LocalMachine(place.id, process, place.directory)
        return None

    async def end(self, place: MachinePlace) -> None:
        while machine := await self.adopt(place):
            await machine.kill()

    async def remove(self, place: MachinePlace) -> None:
        await self.end(place)
        await asyncio.to_thread(shutil.rmtree, place.directory, ignore_errors=True)

    async def leftovers(self) -> set[str]:
        return set()


def _kill_children(pid: int) -> None:
    """Kill the process groups that a process's children lead."""
    for listed in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):  # the process, or that thread, has ended
            for child in listed.read_text().split():
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(int(child), signal.SIGKILL)


def _listen_words(directory: Path) -> list[str]:
    return ["--listen", f"unix:{directory / CONTROL_SOCKET}"]


def _command(directory: Path) -> list[str]:
    return [
        sys.executable,
        *("-m", "hearth.agent"),
        *_listen_words(directory),
        *("--forward", f"unix:{directory / FORWARD_SOCKET}"),
    ]
