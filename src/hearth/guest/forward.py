"""A byte pipe to a TCP port inside the guest."""

from __future__ import annotations

import socket
from typing import Self

from hearth.errors import Unavailable
from hearth.guest.connection import Connection
from hearth.guest.connector import Connector
from hearth.guest.faults import Deadline, encode_request, printable
from hearth.guest.measuring import FROM_SANDBOX, TO_SANDBOX, Counted
from hearth.guest.status import read_status
from hearth.metrics.instruments import PROXY_ACTIVE, PROXY_OPENED
from hearth.model import check_range
from hearth.wire.frames import FrameType
from hearth.wire.messages import ForwardRequest

MAX_PORT = 65_535


async def forward(connector: Connector, port: int, *, timeout_s: float) -> ForwardStream:
    """Connect to ``port`` of the guest's loopback.

    Raises:
        InvalidInput: no such port.
        Unavailable: nothing listens there.
        TimedOut, GuestFailed: the guest did not answer, or wrongly.
    """
    request = encode_request(FrameType.FWD_REQ, ForwardRequest(port=check_range(port, 1, MAX_PORT, what="port")))
    async with Deadline(timeout_s, f"connecting to port {port}"):
        connection = await connector.open_forward(request)
        try:
            status = read_status((await connection.expect(FrameType.FWD_RESP)).payload)
            if status.status != "ok":
                raise Unavailable(
                    f"nothing answers on port {port} of the sandbox",
                    details=printable(status.message or ""),
                    resolution="start a server there, listening on 127.0.0.1 or all addresses",
                )
        except BaseException:
            connection.close()
            raise
    return ForwardStream(connection)


class ForwardStream:
    """Raw bytes both ways. One task reads; either direction can end on its own."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._early = b""
        self._is_open = Counted(PROXY_ACTIVE, PROXY_OPENED)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    async def read(self, max_bytes: int) -> bytes:
        """Wait for bytes; empty at the end of the stream.

        Raises:
            GuestFailed: the connection is gone.
        """
        data = self._early
        if not data:
            data = await self._connection.receive_raw()
            FROM_SANDBOX.inc(len(data))
        if len(data) <= max_bytes:
            self._early = b""
            return data
        self._early = data[max_bytes:]
        return data[:max_bytes]

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send bytes; waits while the guest does not take them.

        Raises:
            GuestFailed: the connection is gone.
        """
        await self._connection.send(data)
        TO_SANDBOX.inc(len(data))

    def end_write(self) -> None:
        """Tell the server in the guest that nothing more comes; it may still answer.

        Raises:
            GuestFailed: the connection is gone.
        """
        self._connection.end_write()

    def is_readable(self) -> bool:
        """True when a read would not wait: bytes, an end or an error are there."""
        return bool(self._early) or self._connection.is_readable()

    def detach(self) -> tuple[socket.socket, bytes]:
        """Hand over the non-blocking socket, now the caller's, and the bytes already read from it.

        Raises:
            GuestFailed: the connection is gone.
        """
        sock, rest = self._connection.detach()
        self._is_open.end()
        early, self._early = self._early, b""
        return sock, early + rest

    def close(self) -> None:
        """End both directions at once."""
        self._connection.close()
        self._is_open.end()
