"""Requests about the machine as a whole: ACTIVITY, POWER_OFF."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

from hearth.agent.bringup.supervise import POWER_OFF_SIGNAL
from hearth.agent.connection import Connection
from hearth.agent.meters import cpu_ms, memory
from hearth.agent.procfs import session_ticks
from hearth.agent.refusal import refused
from hearth.agent.session_table import SessionTable
from hearth.agent.state import Agent
from hearth.wire.faults import Fault
from hearth.wire.frames import FrameType
from hearth.wire.messages import ActivityInfo, Status

_BUSY_SHARE = 0.05
"""A session that used more of a processor than this since the last look is at work, though it says nothing."""


class SystemService:
    """Knows the machine."""

    def __init__(self, agent: Agent, table: SessionTable) -> None:
        self._agent = agent
        self._table = table
        self._lock = threading.Lock()
        self._ticks: tuple[float, int] | None = None

    def handlers(self) -> dict[int, Callable[[Connection, bytes], None]]:
        """Give the requests this service answers."""
        return {
            FrameType.ACTIVITY_REQ: self.activity,
            FrameType.POWER_OFF_REQ: self.power_off,
        }

    def activity(self, connection: Connection, _: bytes) -> None:
        """Tell when the sandbox was last in use."""
        infos = [session.info() for session in self._table.list()]
        if self._agent.has_jobs() or self._sessions_compute():
            self._agent.touch()
        proc = self._agent.doors.proc if self._agent.in_machine else None  # else it tells of the host
        connection.send_message(
            FrameType.ACTIVITY_RESP,
            ActivityInfo(
                last_activity_unix=int(self._agent.last_activity),
                active_sessions=sum(info.running for info in infos),
                attached_sessions=sum(info.attached for info in infos),
                cpu_ms=None if proc is None else cpu_ms(proc),
                memory=None if proc is None else memory(proc),
                frozen=self._agent.freezer is not None and self._agent.freezer.is_frozen,
            ),
        )

    def power_off(self, connection: Connection, _: bytes) -> None:
        """Have init end the machine, once the client has its answer."""
        if not self._agent.in_machine:
            raise refused(Fault.DENIED, "this agent does not run a machine of its own")
        connection.send_message(FrameType.POWER_OFF_RESP, Status(status="ok"))
        connection.close()
        os.kill(1, POWER_OFF_SIGNAL)

    def _sessions_compute(self) -> bool:
        """Tell whether the running sessions have used the processor since the last look."""
        leaders = {session.pid for session in self._table.list() if session.ended_at is None}
        if self._agent.doors.proc is None or not leaders:
            return False
        now, ticks = time.monotonic(), session_ticks(self._agent.doors.proc, leaders)
        with self._lock:
            before, self._ticks = self._ticks, (now, ticks)
        if before is None:
            return False
        used_s = (ticks - before[1]) / os.sysconf("SC_CLK_TCK")
        return used_s > _BUSY_SHARE * (now - before[0])
