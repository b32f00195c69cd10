"""One running QEMU: its monitor, its console and its end."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Protocol

from hearth.engine.base import PLAIN, Capture, MachineEnd, MachineSpec, RunState, VolumeLayout
from hearth.engine.budget import Turn
from hearth.engine.console import Console
from hearth.engine.qemu.command import ROOT
from hearth.engine.qemu.memory_map import guest_memory, memory_address
from hearth.engine.qemu.qmp import Qmp, QmpClosed, QmpRefused
from hearth.engine.qemu.slots import FLUSH_TIMEOUT_S, all_slots, attach, clear, detach, occupied_slots
from hearth.errors import EngineFailed, HostUnfit
from hearth.guest.dial import Dialer
from hearth.host.reclaim import MemoryRange, page_out
from hearth.host.spawn import Identity, Process
from hearth.host.threads import on_own_thread

LAST_WORDS_TIMEOUT_S = 10.0
LAST_LINES = 60
SLOTS = all_slots()


class Capturer(Protocol):
    """Takes snapshots' contents of paused machines; see ``SleepingMachine.turn`` and ``capture``."""

    def turn(self, spec: MachineSpec, /, *, stays_paused: bool) -> AbstractAsyncContextManager[Turn]: ...

    def take(
        self, machine: QemuMachine, spec: MachineSpec, staging: Path, /, *, with_disk: bool, turn: Turn | None
    ) -> Awaitable[Capture]: ...


MemoryLimit = Callable[[], tuple[int, int]]
"""Tells how many processes of the machine's group were killed for memory, and how often it reached its limit."""


class QemuMachine:
    """A machine whose VMM answers: ``SleepingMachine``, ``VolumeMachine`` and ``GrowingMachine`` of ``engine``."""

    def __init__(
        self,
        machine_id: str,
        process: Process,
        monitor: Qmp,
        console: Console,
        dialer: Dialer,
        capturer: Capturer,
        memory_limit: MemoryLimit,
    ) -> None:
        self._id = machine_id
        self._process = process
        self._console = console
        self._dialer = dialer
        self._capturer = capturer
        self._memory_limit = memory_limit
        self.monitor = monitor
        self.lent_sets: set[int] = set()
        """Descriptor sets taken back from a paused QEMU: it closes them only while its CPUs run (monitor/fds.c)."""
        self._memory_address: int | None = None

    @property
    def id(self) -> str:
        return self._id

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def identity(self) -> Identity:
        """Tell which process it is, for good."""
        return self._process.identity

    @property
    def dialer(self) -> Dialer:
        return self._dialer

    @property
    def console(self) -> Console:
        return self._console

    async def wait(self) -> MachineEnd:
        """Wait until the VMM ends; tells how, with the last lines of the guest's console."""
        end = await self._process.wait()
        await self._console.drained(LAST_WORDS_TIMEOUT_S)
        oom_kills, limit_hits = self._memory_limit()
        return MachineEnd(
            how=f"QEMU {end}",
            status=end.status,
            signal=end.signal,
            console=self._console.tail(LAST_LINES),
            events=tuple(self.monitor.told),
            oom_kills=oom_kills,
            limit_hits=limit_hits,
        )

    async def run_state(self) -> RunState:
        """Ask QEMU whether the CPUs run.

        Raises:
            EngineFailed: it gives no answer to that.
        """
        status = await self.monitor.execute("query-status")
        running = status.get("running") if isinstance(status, dict) else None
        if not isinstance(running, bool):
            raise EngineFailed("QEMU does not tell whether the CPUs run", details=str(status)[:200])
        return RunState.RUNNING if running else RunState.PAUSED

    async def pause(self) -> None:
        """Stop the CPUs; QEMU flushes the disks before it answers."""
        await self.monitor.execute("stop")

    async def resume(self) -> None:
        """Let the CPUs run on."""
        await self.monitor.execute("cont")
        for set_id in tuple(self.lent_sets):
            self.lent_sets.discard(set_id)
            with contextlib.suppress(QmpRefused):
                await self.monitor.take_back(set_id)

    async def halted(self) -> str:
        """Wait until QEMU stops the CPUs because the host's disk is full (its ``werror=enospc``, the default)."""
        try:
            with self.monitor.watch("BLOCK_IO_ERROR") as events:
                while True:
                    event = await events.next()
                    if event.get("action") == "stop":
                        return f"{event.get('operation')} failed: {event.get('reason')}"
        except QmpClosed:
            # Its end is told by ``wait``.
            await asyncio.Event().wait()
            raise

    async def page_out(self) -> int:
        """Ask the host to page out the guest's memory.

        Raises:
            HostUnfit: the host has no swap, or its kernel refuses.
        """
        address = await self.memory_address()
        return await on_own_thread("page out", lambda: _page_out(self.pid, address))

    async def memory_address(self) -> int:
        """Say where in its own address space the VMM has the guest's memory: asked once, it stays there.

        Raises:
            EngineFailed: QEMU does not say.
        """
        if self._memory_address is None:
            self._memory_address = await memory_address(self.monitor)
        return self._memory_address

    def turn(self, spec: MachineSpec, *, stays_paused: bool) -> AbstractAsyncContextManager[Turn]:
        """Wait for memory to capture it with; see ``hearth.engine.budget``."""
        return self._capturer.turn(spec, stays_paused=stays_paused)

    async def capture(self, spec: MachineSpec, staging: Path, *, with_disk: bool, turn: Turn | None = None) -> Capture:
        """Take what a snapshot needs; see ``hearth.engine.qemu.capture``."""
        return await self._capturer.take(self, spec, staging, with_disk=with_disk, turn=turn)

    async def attach_volume(
        self, place: int, descriptor: int, *, layout: VolumeLayout = PLAIN, is_known: bool = False
    ) -> None:
        """Put an open volume into an empty slot."""
        running = await self.run_state() is RunState.RUNNING
        await attach(self.monitor, SLOTS[place], descriptor, layout=layout, running=running, announce=not is_known)

    async def detach_volume(self, place: int) -> None:
        """Take a volume out of its slot, or what is left there of half an attachment."""
        if place in await self.filled_places():
            await detach(self.monitor, SLOTS[place], running=await self.run_state() is RunState.RUNNING)
        else:
            await clear(self.monitor, SLOTS[place])

    async def grow_disk(self, size_bytes: int) -> None:
        """Grow the root disk; QEMU tells the guest, at once or when its CPUs run on."""
        await self.monitor.execute("block_resize", {"node-name": ROOT, "size": size_bytes}, timeout_s=FLUSH_TIMEOUT_S)

    async def filled_places(self) -> set[int]:
        """Ask QEMU which slots hold a volume."""
        nodes = await self.monitor.execute("query-named-block-nodes", {"flat": True})
        return occupied_slots(SLOTS, nodes)

    async def kill(self) -> None:
        """End the VMM at once, wait for it and let go of its sockets."""
        self._process.kill()
        await self._process.wait()
        await self.release()

    async def release(self) -> None:
        """Let go of the VMM and leave it as it is, for the next daemon to adopt."""
        self._process.close()
        await self.monitor.close()
        await self._console.close()


def _page_out(pid: int, address: int) -> int:
    memory = guest_memory(pid, address)
    # Our own pidfd watches this process: its number cannot have gone to another.
    pidfd = os.pidfd_open(pid)
    try:
        done = page_out(pidfd, [MemoryRange(memory.address, memory.length)])
    finally:
        os.close(pidfd)
    if done.obstacle is not None and not done.advised_bytes:
        raise HostUnfit("memory cannot be paged out", details=done.obstacle, resolution="add swap or zram to the host")
    return done.advised_bytes
