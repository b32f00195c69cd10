"""Keeps what VMMs say from filling the host's disk."""

from __future__ import annotations

import asyncio
from pathlib import Path

import structlog

from hearth.engine.qemu.handover import trim_logs
from hearth.host.clock import Clock

log = structlog.get_logger(__name__)

INTERVAL_S = 5.0
"""A flooding guest makes its VMM write some tens of MB meanwhile."""


async def keep_logs_short(machines: Path, clock: Clock) -> None:
    """Empty overgrown logs of the machines below a directory until cancelled."""
    while True:
        try:
            trimmed = await asyncio.to_thread(trim_logs, machines)
        except OSError as error:
            log.error("logs not looked at", error=str(error))
        else:
            for machine_id in trimmed:
                log.warning("a VMM complains without end, its log was emptied", machine=machine_id)
        await clock.sleep(INTERVAL_S)
