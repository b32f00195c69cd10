"""A daemon that dies of SIGKILL at one step of a stop or a start: ``DIRECTORY SANDBOX stop|start STEP``.

``DIRECTORY "" pool ""`` dies with a sandbox and a clone made ahead.

Everything is real; the step alone is wrapped by what kills this process before or after it.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.machines.sleepers import QUIET, opened, until

from hearth.config import DataDirectory
from hearth.control import capturing
from hearth.control import sleep as sleeping
from hearth.control.fleet import Fleet
from hearth.engine.qemu.capture import QemuCapture
from hearth.engine.qemu.engine import QemuEngine
from hearth.engine.qemu.machine import QemuMachine
from hearth.engine.qemu.restoring import QemuWaiting
from hearth.guest.client import Guest
from hearth.jobs import bringup
from hearth.jobs.bringup import Workshop
from hearth.jobs.runner import Runner
from hearth.network.machine import MachineNetwork

Place = tuple[Any, str]
STOP: Mapping[str, Place] = {
    "freeze": (Guest, "freeze"),
    "pause": (QemuMachine, "pause"),
    "capture": (QemuMachine, "capture"),
    "store": (QemuCapture, "store"),
    "publish": (capturing, "publish"),
    "verify": (capturing, "verify"),
    "kill": (Fleet, "end"),
    "put out": (Workshop, "put_out"),
    "row": (None, "transition"),
}
"""The steps of a stop in their order; each kills after it."""
START: Mapping[str, Place] = {
    "network": (MachineNetwork, "setup"),
    "vmm": (QemuEngine, "wait_for"),
    "load": (QemuWaiting, "load"),
    "consume": (bringup, "consume"),
    "resume": (QemuMachine, "resume"),
    "identity": (Guest, "configure"),
    "job": (Runner, "run"),
    "row": (None, "transition"),
    "discard": (sleeping, "discard"),
}
"""The steps of a start in their order; each kills after it."""


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def doom(owner: Any, name: str) -> None:
    """Replace a function by one that does the same and then kills this process."""
    real: Callable[..., Any] = getattr(owner, name)

    async def last_of_all(*arguments: Any, **named: Any) -> Any:
        await real(*arguments, **named)
        die()

    def last(*arguments: Any, **named: Any) -> Any:
        real(*arguments, **named)
        die()

    setattr(owner, name, last_of_all if inspect.iscoroutinefunction(real) else last)


async def keep_ready(data: DataDirectory) -> None:
    """Die with a sandbox and a clone made ahead."""
    async with opened(data, replace(QUIET, pool_ready=1)) as house:
        await house.create("first")
        await until(lambda: house.sandboxes.pool.sizes()["ready"] == 1, "a clone is made ahead")
        die()


async def main(directory: str, sandbox_id: str, work: str, step: str) -> None:
    if work == "pool":
        await keep_ready(DataDirectory(root=Path(directory)))
    async with opened(DataDirectory(root=Path(directory))) as house:
        sandbox = await house.sandboxes.get(house.admin, sandbox_id)
        owner, name = (STOP if work == "stop" else START)[step]
        doom(house.sandboxes.store.sandboxes if owner is None else owner, name)
        if work == "stop":
            await house.sandboxes.sleep.stop(sandbox.id)
        else:
            await house.sandboxes.sleep.start(sandbox)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
