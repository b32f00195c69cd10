"""The STDIN frames behind a request, in bounded time: a client may be slow, but not stand still or drip for ever."""

from __future__ import annotations

import time

from hearth.agent.connection import Connection
from hearth.agent.refusal import refused
from hearth.wire.faults import Fault
from hearth.wire.frames import FrameType

LEAST_RATE = 4096
"""Bytes a second that a body must bring on average."""


class Body:
    """Gives the pieces of a body.

    Args:
        stall_s: how long the next frame may take, and how far the whole may fall behind the least rate.
    """

    def __init__(self, connection: Connection, stall_s: float) -> None:
        self.size = 0
        """Bytes so far."""
        self._connection = connection
        self._stall_s = stall_s
        self._started = time.monotonic()

    def next(self) -> bytes | None:
        """Wait for the next piece, which may be empty; None at STDIN_EOF.

        Raises:
            Refused: it did not come in time, the connection ended, or something else came.
        """
        now = time.monotonic()
        deadline = min(now, self._started + self.size / LEAST_RATE) + self._stall_s
        try:
            frame = self._connection.read_frame(deadline)
        except TimeoutError as error:
            raise refused(Fault.PROTOCOL, f"the body stood still or dripped for {self._stall_s:g} s") from error
        if frame is None:
            raise refused(Fault.INVALID, f"the body ended after {self.size} bytes")
        if frame.type == FrameType.STDIN_EOF:
            return None
        if frame.type != FrameType.STDIN:
            raise refused(Fault.PROTOCOL, f"frame type 0x{frame.type:02x} in a body")
        self.size += len(frame.payload)
        return frame.payload
