"""How the host reaches the agent of one machine; which transport it is stays hidden behind ``Dialer``."""

from __future__ import annotations

import socket
from typing import Protocol

CONTROL_PORT = 1024
FORWARD_PORT = 1025


class Dialer(Protocol):
    """Opens connections to the agent."""

    async def connect(self, port: int) -> socket.socket:
        """Give a connected, non-blocking stream socket to the agent's ``port`` (CONTROL_PORT or FORWARD_PORT).

        The caller owns and closes it. One attempt, no retry: the caller knows how long it wants to wait.

        Raises:
            OSError: the agent cannot be reached now.
        """
        ...
