"""How the host reaches the agent of one machine; which transport it is stays hidden behind ``Dialer``."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass
from pathlib import Path
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


@dataclass(frozen=True, kw_only=True)
class UnixDialer:
    """Reaches an agent that listens on Unix sockets: one beside the host in a container, or one under test."""

    control: Path
    forward: Path

    async def connect(self, port: int) -> socket.socket:
        """Give a connected, non-blocking socket; see ``Dialer``."""
        path = self.control if port == CONTROL_PORT else self.forward
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(sock, str(path))
        except BaseException:
            sock.close()
            raise
        return sock
