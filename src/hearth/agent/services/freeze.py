"""FREEZE and THAW: the file systems stand still while the host copies them."""

from __future__ import annotations

from collections.abc import Callable

from hearth.agent.connection import Connection
from hearth.agent.freeze import Freezer
from hearth.agent.refusal import refused
from hearth.wire.faults import Fault
from hearth.wire.frames import FrameType
from hearth.wire.messages import FreezeRequest, Status, decode, encode_list


class FreezeService:
    """Freezes what the agent of a machine may freeze; in test mode the file systems are the host's."""

    def __init__(self, freezer: Freezer | None) -> None:
        """``freezer`` is None where there is no machine of our own."""
        self._freezer = freezer

    def handlers(self) -> dict[int, Callable[[Connection, bytes], None]]:
        """Give the requests this service answers."""
        return {FrameType.FREEZE_REQ: self.freeze, FrameType.THAW_REQ: self.thaw}

    def freeze(self, connection: Connection, payload: bytes) -> None:
        """Freeze, and tell how full each file system is."""
        request = decode(FreezeRequest, payload)
        if self._freezer is None:
            raise refused(Fault.DENIED, "this agent does not run a machine of its own, it freezes nothing")
        report = self._freezer.freeze(request.timeout_sec, request.thaw_after_sec)
        connection.send(FrameType.FREEZE_RESP, encode_list(report))

    def thaw(self, connection: Connection, _: bytes) -> None:
        """Thaw what is frozen."""
        if self._freezer is not None:
            self._freezer.thaw()
        connection.send_message(FrameType.THAW_RESP, Status(status="ok"))
