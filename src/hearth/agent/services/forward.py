"""FWD_REQ: joins a connection to a port of the guest's loopback."""

from __future__ import annotations

import socket
from collections.abc import Callable

from hearth.agent.bytepipe import join
from hearth.agent.connection import Connection
from hearth.agent.state import Agent
from hearth.wire.frames import FrameType
from hearth.wire.messages import ForwardRequest, Status, decode

CONNECT_TIMEOUT_S = 5.0
_LOOPBACKS = ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"))


class ForwardService:
    """Answers on the forward port."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    def handlers(self) -> dict[int, Callable[[Connection, bytes], None]]:
        """Give the requests this service answers."""
        return {FrameType.FWD_REQ: self.forward}

    def forward(self, connection: Connection, payload: bytes) -> None:
        """Connect, tell how it went, and move bytes until both sides have ended."""
        self._agent.touch()
        try:
            target = _connect(decode(ForwardRequest, payload).port)
        except OSError as error:
            message = error.strerror or str(error) or "failed"
            connection.send_message(FrameType.FWD_RESP, Status(status="error", message=message))
            return
        with target:
            connection.send_message(FrameType.FWD_RESP, Status(status="ok"))
            join(connection.socket, target, connection.take_rest(), self._agent.touch)


def _connect(port: int) -> socket.socket:
    """Connect to the port on IPv4 loopback, then IPv6.

    Raises:
        OSError: nobody listens; it is the error of the first try.
    """
    first: OSError | None = None
    for family, address in _LOOPBACKS:
        sock = None
        try:
            sock = socket.socket(family, socket.SOCK_STREAM)
            sock.settimeout(CONNECT_TIMEOUT_S)
            sock.connect((address, port))
            sock.settimeout(None)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError as error:
            if sock is not None:
                sock.close()
            first = first or error
        else:
            return sock
    assert first is not None
    raise first
