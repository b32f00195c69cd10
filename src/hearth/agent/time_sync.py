"""TIME_SYNC: the time of a host that wakes a paused machine, set before its request is looked at."""

from __future__ import annotations

import time

from hearth.agent import identity
from hearth.agent.state import Agent
from hearth.wire.frames import TimeSync

TOLERANCE_NS = 10_000_000


def apply_time(agent: Agent, sync: TimeSync) -> None:
    """Set the wall clock of our machine where it is off; in test mode the clock is the host's and stays.

    Raises:
        OSError: the kernel refused.
    """
    if not agent.in_machine:
        return
    if sync.entropy and agent.doors.random is not None:
        identity.add_entropy(agent.doors.random, sync.entropy)
    if abs(time.time_ns() - sync.unix_time_ns) > TOLERANCE_NS:
        identity.set_clock(sync.unix_time_ns)
