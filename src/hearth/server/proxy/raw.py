"""The client's end of a connection that is HTTP no more: bytes both ways, each way with an end of its own."""

from __future__ import annotations

import asyncio
import fcntl
import sys
import termios

from starlette.requests import ClientDisconnect
from uvicorn.protocols.http.flow_control import FlowControl

MAX_HELD_BYTES = 262_144
"""What is held of a client that sends faster than the sandbox takes; then its socket is left to fill."""
STALL_S = 120.0
"""How long a client may take no byte of what is there for it."""


class RawStream:
    """One task reads, one writes; the protocol feeds."""

    def __init__(self, transport: asyncio.Transport, flow: FlowControl, *, can_half_close: bool) -> None:
        self._transport = transport
        self._flow = flow
        self._can_half_close = can_half_close
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._ended = False
        self._lost = False
        self._news = asyncio.Event()
        self.fed_bytes = 0
        """So many have come so far."""

    @property
    def is_full(self) -> bool:
        """True while the client is read no further."""
        return self._held_bytes >= MAX_HELD_BYTES

    @property
    def is_backed_up(self) -> bool:
        """True while the client does not take what is there for it."""
        return self._flow.write_paused

    def unsent_bytes(self) -> int:
        """Tell how much the kernel holds that the client's has not taken; 0 where that cannot be told."""
        connection = self._transport.get_extra_info("socket")
        if connection is None or self._lost or self._transport.is_closing():
            return 0
        return int.from_bytes(fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, bytes(4)), sys.byteorder)

    def feed(self, data: bytes) -> None:
        """Take bytes from the connection; none mean its end."""
        if data:
            self._held.append(data)
            self.fed_bytes += len(data)
            self._held_bytes += len(data)
            if self._held_bytes >= MAX_HELD_BYTES:
                self._flow.pause_reading()
        else:
            self._ended = True
        self._news.set()

    def lost(self) -> None:
        """Note that the connection is gone."""
        self._lost = True
        self._news.set()

    async def read(self) -> bytes:
        """Wait for bytes; empty once the client has ended its direction.

        Raises:
            ClientDisconnect: the connection is gone.
        """
        while not self._held:
            if self._lost:
                raise ClientDisconnect
            if self._ended:
                return b""
            self._news.clear()
            await self._news.wait()
        data = b"".join(self._held)
        self._held.clear()
        self._held_bytes = 0
        self._flow.resume_reading()
        return data

    async def write(self, data: bytes) -> None:
        """Send bytes; waits while the client does not take them.

        Raises:
            ClientDisconnect: the connection is gone, or stands still.
        """
        if self._flow.write_paused and not self._lost:
            try:
                async with asyncio.timeout(STALL_S):
                    await self._flow.drain()
            except TimeoutError as error:
                self._transport.abort()
                raise ClientDisconnect from error
        if self._lost or self._transport.is_closing():
            raise ClientDisconnect
        self._transport.write(data)

    def end_write(self) -> None:
        """Tell the client that nothing more comes; where that cannot be told alone, the connection ends."""
        if self._lost or self._transport.is_closing():
            return
        if self._can_half_close:
            self._transport.write_eof()
        else:
            self._transport.close()

    def abort(self) -> None:
        """End both directions at once."""
        self._transport.abort()

    def close(self) -> None:
        """End both directions, once what was written has gone out."""
        self._transport.close()
