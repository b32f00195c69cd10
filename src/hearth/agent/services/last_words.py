"""LAST_WORDS: why processes of this machine ended that nobody here has ended."""

from __future__ import annotations

import time
from collections.abc import Callable

from hearth.agent.connection import Connection
from hearth.agent.kernel_log import KernelLog
from hearth.agent.refusal import refused
from hearth.wire.faults import Fault
from hearth.wire.frames import FrameType
from hearth.wire.messages import LastWords


class LastWordsService:
    """Reads the kernel's log; in test mode that is the host's and none of ours."""

    def __init__(self, log: KernelLog | None) -> None:
        """``log`` is None where there is no machine of our own."""
        self._log = log

    def handlers(self) -> dict[int, Callable[[Connection, bytes], None]]:
        """Give the requests this service answers."""
        return {FrameType.LAST_WORDS_REQ: self.tell}

    def tell(self, connection: Connection, _: bytes) -> None:
        """Answer with the last kills for want of memory."""
        if self._log is None:
            raise refused(Fault.DENIED, "this agent does not run a machine of its own, its kernel's log is the host's")
        uptime_s = time.clock_gettime(time.CLOCK_BOOTTIME)
        words = LastWords(uptime_sec=uptime_s, oom_kills=self._log.oom_kills())
        connection.send_message(FrameType.LAST_WORDS_RESP, words)
