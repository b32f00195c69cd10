"""Whether there is room for one more sandbox; what nobody needs goes before anybody is refused."""

from __future__ import annotations

import asyncio
import shutil

from hearth.control.shelf import MIB, Shelf
from hearth.errors import NoSpace
from hearth.jobs.bringup import Workshop

MIN_FREE_TO_RUN_MIB = 64
"""With less a machine would halt at its first writes."""


async def require_space(workshop: Workshop, shelf: Shelf) -> None:
    """Refuse new work where the data directory is nearly full, after unneeded templates have been evicted.

    Raises:
        NoSpace: it is.
    """
    wanted_mib = workshop.settings.min_free_mib
    if await _free_mib(workshop) >= wanted_mib:
        return
    await shelf.sweep()
    free_mib = await _free_mib(workshop)
    if free_mib < wanted_mib:
        raise NoSpace(
            "the data directory is nearly full",
            details=f"{workshop.data.root} has {free_mib} MiB left, a new sandbox wants {wanted_mib} MiB",
            resolution="destroy sandboxes, delete checkpoints, free space, or choose another HEARTH_DATA",
        )


async def _free_mib(workshop: Workshop) -> int:
    return (await asyncio.to_thread(shutil.disk_usage, workshop.data.root)).free // MIB


def require_room_to_run(workshop: Workshop, why: str) -> None:
    """Refuse to let a machine run where its first write would make it stand still.

    Args:
        why: it does not run now.

    Raises:
        NoSpace: the data directory's file system is full.
    """
    free_mib = shutil.disk_usage(workshop.data.root).free // MIB
    if free_mib < MIN_FREE_TO_RUN_MIB:
        raise NoSpace(
            "the sandbox stands still: the host's disk is full",
            details=f"{why}; {workshop.data.root} has {free_mib} MiB left",
            resolution="free space on the host and try again; nothing is lost",
        )
