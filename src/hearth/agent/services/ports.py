"""PORTS_REQ: what listens in the guest."""

from __future__ import annotations

from collections.abc import Callable

from hearth.agent.connection import Connection
from hearth.agent.procfs import listening_ports
from hearth.agent.refusal import refused
from hearth.agent.state import Agent
from hearth.wire.faults import Fault
from hearth.wire.frames import FrameType
from hearth.wire.messages import encode_list


class PortService:
    """Lists listening ports."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    def handlers(self) -> dict[int, Callable[[Connection, bytes], None]]:
        """Give the requests this service answers."""
        return {FrameType.PORTS_REQ: self.list}

    def list(self, connection: Connection, _: bytes) -> None:
        """Answer with the listening TCP sockets."""
        if self._agent.doors.proc is None:
            raise refused(Fault.INTERNAL, "this system has no /proc to list ports from")
        connection.send(FrameType.PORTS_RESP, encode_list(listening_ports(self._agent.doors.proc)))
