"""Waiting for a store that went away: restarting a database is no reason to break off hours of work."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog

from hearth.errors import Unavailable
from hearth.host.clock import Clock

log = structlog.get_logger(__name__)

T = TypeVar("T")

PAUSE_S = 1.0


async def patiently(call: Callable[[], Awaitable[T]], clock: Clock, *, what: str) -> T:
    """Call until the store answers; it has no end of its own, so somebody must be there who cancels it.

    Around the steps of a job that is the heartbeat: once the lease cannot be renewed the work is abandoned.
    """
    waits = False
    while True:
        try:
            return await call()
        except Unavailable as error:
            if not waits:
                log.warning("waiting for the store", what=what, error=str(error))
            waits = True
        await clock.sleep(PAUSE_S)
