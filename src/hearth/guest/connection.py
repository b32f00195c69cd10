"""Frames over one socket to the agent, on the event loop itself: no streams, no transport, one reader callback.

The peer is hostile. What bounds it: a frame's length, the bytes held unread (then the socket is left to fill, which
slows the guest), and a turn given to other tasks every so many frames.
"""

from __future__ import annotations

import asyncio
import select
import socket
from collections.abc import Callable
from typing import Self

from hearth.errors import GuestFailed
from hearth.guest.faults import error_of_guest, protocol_broken
from hearth.wire.frames import Decoder, Frame, FrameType, ProtocolError, TruncatedStream

UNREAD_LIMIT = 262_144
"""Bytes held for a consumer that is not waiting before reading stops; one unfinished frame may come on top."""
FRAMES_PER_TURN = 256
"""Frames given without a pause; more tiny frames than this would keep other tasks waiting."""

_MIN_CHUNK = 16_384
_MAX_CHUNK = 262_144
_NO_REPLIES = (FrameType.ERROR, FrameType.PROBE)
_KNOWN_TYPES = frozenset(FrameType) - {FrameType.PROBE}


class Connection:
    """One connection to the agent. One task receives at a time; any number may send, frames never interleave.

    Closing is immediate and is how an operation is abandoned: the agent kills what ran for this connection.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.on_close: Callable[[], None] | None = None
        """Called once, when the connection closes."""
        self.on_reply: Callable[[], None] | None = None
        """Called once, with the first frame that shows that the request was looked at."""
        self._loop = asyncio.get_running_loop()
        self._socket = sock
        self._decoder = Decoder()
        self._chunk = _MIN_CHUNK
        self._turn = 0
        self._reading = False
        self._ended = False
        self._closed = False
        self._error: OSError | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._write_lock = asyncio.Lock()
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def send(self, data: bytes | bytearray | memoryview) -> None:
        """Send whole frames in one piece; waits while the guest does not take them.

        Cancelled half-way it closes the connection, as nothing may follow half a frame.

        Raises:
            GuestFailed: the connection is gone.
        """
        async with self._write_lock:
            sent = self._send_now(data)
            if sent < len(data):
                await self._send_rest(memoryview(data)[sent:])

    async def receive(self) -> Frame | None:
        """Wait for the next frame; None at a clean end of the stream.

        Raises:
            GuestFailed: the framing is broken, the stream was cut inside a frame, or the connection is gone.
        """
        self._turn += 1
        if self._turn >= FRAMES_PER_TURN:
            self._turn = 0
            await asyncio.sleep(0)
        while True:
            try:
                frame = self._decoder.next()
                if frame is not None:
                    if self.on_reply is not None and frame.type not in _NO_REPLIES:
                        self.on_reply()
                        self.on_reply = None
                    return frame
                if self._ended:
                    self._decoder.eof()
                    return None
            except (ProtocolError, TruncatedStream) as error:
                raise protocol_broken(error) from error
            self._check_alive()
            await self._readable()

    async def expect(self, *wanted: FrameType) -> Frame:
        """Wait for a frame of one of these types; unknown types are skipped.

        Raises:
            GuestFailed: another type came, the stream ended, or as for ``receive``.
            HearthError: the agent answered ERROR, see ``hearth.guest.faults``.
        """
        frame = await self.expect_or_end(*wanted)
        if frame is None:
            raise GuestFailed("the guest closed the connection too early")
        return frame

    async def expect_or_end(self, *wanted: FrameType) -> Frame | None:
        """Wait like ``expect``, but a clean end of the stream is None."""
        while True:
            frame = await self.receive()
            if frame is None or frame.type in wanted:
                return frame
            if frame.type == FrameType.ERROR:
                raise error_of_guest(frame.payload)
            if frame.type in _KNOWN_TYPES:
                raise GuestFailed("the guest broke the protocol", details=f"unexpected {FrameType(frame.type).name}")

    async def receive_raw(self) -> bytes:
        """Wait for bytes that are no frames (a forward after its reply); empty at the end of the stream.

        Raises:
            GuestFailed: the connection is gone.
        """
        while not self._decoder.pending:
            if self._ended:
                return b""
            self._check_alive()
            await self._readable()
        return self._decoder.take_rest()

    def end_write(self) -> None:
        """Half-close: tell the peer of a forward that nothing more comes.

        Raises:
            GuestFailed: the connection is gone.
        """
        self._check_alive()
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError as error:
            raise _gone(error) from error

    def detach(self) -> tuple[socket.socket, bytes]:
        """Close, but hand the stream over: a non-blocking socket, now the caller's, and what was read from it already.

        Raises:
            GuestFailed: the connection is gone.
        """
        self._check_alive()
        duplicate, early = self._socket.dup(), self._decoder.take_rest()
        self.close()
        return duplicate, early

    def is_readable(self) -> bool:
        """True when bytes, an end or an error have come that nobody received; looks at the socket without waiting."""
        if self._decoder.pending or self._ended or self._closed or self._error is not None:
            return True
        poller = select.poll()  # select(2) would fail at descriptor 1024
        poller.register(self._socket, select.POLLIN)
        return bool(poller.poll(0))

    def close(self) -> None:
        """End the connection at once; twice is fine."""
        if self._closed:
            return
        self._closed = True
        self._pause()
        self._loop.remove_writer(self._socket)
        self._socket.close()
        self._wake()
        if self.on_close is not None:
            self.on_close()

    def _check_alive(self) -> None:
        if self._error is not None or self._closed:
            raise _gone(self._error) from self._error

    async def _readable(self) -> None:
        if self._waiter is not None:
            raise RuntimeError("two tasks receive from one connection")
        if not self._reading:
            self._reading = True
            self._loop.add_reader(self._socket, self._on_readable)
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _on_readable(self) -> None:
        try:
            data = self._socket.recv(self._chunk)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._error = error
            self._pause()
            self._wake()
            return
        if not data:
            self._ended = True
            self._pause()
        else:
            self._decoder.feed(data)
            if len(data) == self._chunk < _MAX_CHUNK:
                self._chunk *= 2
        if not self._wake() and self._decoder.pending >= UNREAD_LIMIT:
            self._pause()

    def _wake(self) -> bool:
        if self._waiter is None or self._waiter.done():
            return False
        self._waiter.set_result(None)
        return True

    def _pause(self) -> None:
        if self._reading:
            self._reading = False
            self._loop.remove_reader(self._socket)

    def _send_now(self, data: bytes | bytearray | memoryview) -> int:
        if self._closed:
            raise _gone(None)
        try:
            return self._socket.send(data)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError as error:
            raise _gone(error) from error

    async def _send_rest(self, rest: memoryview) -> None:
        try:
            while rest:
                await self._writable()
                rest = rest[self._send_now(rest) :]
        except asyncio.CancelledError:
            self.close()
            raise

    async def _writable(self) -> None:
        waiter: asyncio.Future[None] = self._loop.create_future()

        def ready() -> None:
            if not waiter.done():
                waiter.set_result(None)

        self._loop.add_writer(self._socket, ready)
        try:
            await waiter
        finally:
            if not self._closed:
                self._loop.remove_writer(self._socket)


def _gone(error: OSError | None) -> GuestFailed:
    return GuestFailed("the connection to the guest is gone", details=str(error) if error is not None else "closed")
