"""Brings a VMM that waits for its state to the moment of a snapshot: memory first, then the devices."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hearth.engine.base import MachineEnd, RunState, SnapshotRefused
from hearth.engine.manifest import MemoryKind
from hearth.engine.memory_image import Diff, read_diff
from hearth.engine.qemu.command import Descriptor
from hearth.engine.qemu.handover import read_log
from hearth.engine.qemu.machine import QemuMachine
from hearth.engine.qemu.qmp import Events, QmpClosed
from hearth.engine.snapshot import StoredSnapshot
from hearth.errors import EngineFailed, TimedOut
from hearth.host.threads import on_own_thread

LOAD_TIMEOUT_S = 30.0
LOADED, FAILED = "completed", "failed"
"""States of an incoming migration (qapi/migration.json) after which nothing more comes."""


@dataclass(frozen=True, kw_only=True)
class QemuWaiting:
    """Implements ``hearth.engine.base.WaitingMachine``.

    Args:
        machine: paused, with the memory of the snapshot's base mapped.
        directory: the machine's, where QEMU's last words are.
    """

    machine: QemuMachine
    directory: Path
    snapshot: StoredSnapshot

    @property
    def id(self) -> str:
        return self.machine.id

    async def load(self) -> QemuMachine:
        """Bring the machine to the moment of the snapshot and leave it paused."""
        try:
            pages = await on_own_thread("read memory", lambda: read_own_pages(self.snapshot), discard=_close)
            with pages or contextlib.nullcontext():
                await load_state(self.machine, pages)
        except BaseException as error:
            await self.machine.kill()
            if not isinstance(error, EngineFailed) or isinstance(error, SnapshotRefused):
                raise
            said = f"{self.snapshot.id}: {error.details} {read_log(self.directory)}"
            raise EngineFailed("the machine did not take its snapshot", details=said) from error
        return self.machine

    async def kill(self) -> None:
        """End the VMM at once."""
        await self.machine.kill()

    async def wait(self) -> MachineEnd:
        """Wait until the VMM ends and tell how."""
        return await self.machine.wait()


def _close(pages: Diff | None) -> None:
    if pages is not None:
        pages.close()


def read_own_pages(snapshot: StoredSnapshot) -> Diff | None:
    """Read and verify what a snapshot's memory has over its base; None when it is a base itself. Blocking.

    Raises:
        SnapshotRefused: it is damaged.
    """
    if snapshot.manifest.memory.kind is MemoryKind.FULL:
        return None
    return read_diff(snapshot.memory, snapshot.manifest.memory_bytes, expected=snapshot.memory_record)


async def load_state(machine: QemuMachine, pages: Diff | None) -> None:
    """Fill the memory of a machine that waits with its base mapped, and load the devices' state; it stays paused.

    Raises:
        EngineFailed: QEMU did not take the state.
        TimedOut: it did not come to an end with it.
    """
    if pages is not None:
        address = await machine.memory_address()
        await on_own_thread("fill memory", lambda: pages.apply(machine.pid, address))
    with machine.monitor.watch("MIGRATION") as events:
        capabilities = [{"capability": "events", "state": True}]
        try:
            async with asyncio.timeout(LOAD_TIMEOUT_S):
                await machine.monitor.execute_all(
                    [
                        ("migrate-set-capabilities", {"capabilities": capabilities}),
                        # Nobody need be told where the guest is now; it would be busy telling when the host first asks.
                        ("migrate-set-parameters", {"announce-rounds": 0}),
                        ("migrate-incoming", {"uri": f"fd:{Descriptor.STATE:d}"}),
                    ],
                    timeout_s=LOAD_TIMEOUT_S,
                )
                await _loaded(events)
        except TimeoutError as error:
            raise TimedOut("QEMU did not load the state", details=f"within {LOAD_TIMEOUT_S:g} s") from error
        except QmpClosed as error:
            raise EngineFailed("QEMU did not take the state and ended", details=error.details) from error
    if await machine.run_state() is not RunState.PAUSED:
        raise EngineFailed("QEMU runs a machine that was to wait", details=machine.id)


async def _loaded(events: Events) -> None:
    while (status := _status(await events.next())) != LOADED:
        if status == FAILED:
            raise EngineFailed("QEMU did not take the state")


def _status(event: Mapping[str, object]) -> str:
    return str(event.get("status", ""))
