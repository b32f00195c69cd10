"""One accepted socket as whole frames: blocking calls for plain requests, non-blocking pieces for those who poll."""

from __future__ import annotations

import select
import socket
import time
from collections import deque

from hearth.wire import frames
from hearth.wire.frames import Frame, FrameType
from hearth.wire.messages import encode
from hearth.wire.record import Record

_RECEIVE_BYTES = 65_536
_LINGER_S = 1.0
_MAX_LINGER_S = 30.0
_LINGER_BYTES = 128 * 1024 * 1024

PROBE_INTERVAL_S = 1.0
"""How often a half-closed TCP peer is asked whether it is still there; see ``Connection.probe``."""


class PeerGone(Exception):
    """The other side closed, reset or fell silent; there is nobody to answer."""


class Connection:
    """Frames over a connected stream socket. One thread uses it at a time."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self.is_tcp = sock.family in (socket.AF_INET, socket.AF_INET6)
        """True where a closed peer looks like a half-closed one until something is sent to it."""
        self._decoder = frames.Decoder()
        self._pending: deque[memoryview] = deque()

    def fileno(self) -> int:
        return self.socket.fileno()

    def read_frame(self, deadline: float | None = None) -> Frame | None:
        """Wait for the next frame; None at a clean end of the stream. ``deadline`` is on the monotonic clock.

        Raises:
            ProtocolError: the framing is broken.
            TruncatedStream: the stream ended inside a frame.
            TimeoutError: the whole frame was not here in time.
            PeerGone: the connection broke.
        """
        while (frame := self._decoder.next()) is None:
            try:
                more = self._receive(0 if deadline is None else socket.MSG_DONTWAIT)
            except BlockingIOError:
                self._wait_readable(deadline or 0.0)
                continue
            if not more:
                self._decoder.eof()
                return None
        return frame

    def fill(self) -> bool:
        """Take what the socket holds now, without waiting; False when the peer has closed its direction.

        Raises:
            PeerGone: the connection broke.
        """
        try:
            return self._receive(socket.MSG_DONTWAIT)
        except BlockingIOError:
            return True

    def fill_rest(self) -> bool:
        """Take a piece of what a peer that is gone has left in the socket; False when there is no more."""
        try:
            return self._receive(socket.MSG_DONTWAIT)
        except (BlockingIOError, PeerGone):
            return False

    def next_frame(self) -> Frame | None:
        """Take a frame that is here already, or None.

        Raises:
            ProtocolError: the framing is broken.
        """
        return self._decoder.next()

    def take_rest(self) -> bytes:
        """Take the bytes received behind the last frame; what follows is no longer frames."""
        return self._decoder.take_rest()

    def send(self, frame_type: int, payload: bytes | bytearray | memoryview = b"") -> None:
        """Send one frame, waiting as long as the peer takes.

        Raises:
            OversizedFrame: the payload does not fit a frame.
            PeerGone: the connection broke.
        """
        header = frames.encode_header(frame_type, len(payload))
        if not payload:
            self._send_all(header)
            return
        try:
            sent = self.socket.sendmsg((header, payload))
        except OSError as error:
            raise PeerGone(str(error)) from error
        if sent < len(header):
            self._send_all(header[sent:])
            sent = len(header)
        if (rest := memoryview(payload)[sent - len(header) :]).nbytes:
            self._send_all(rest)

    def send_message(self, frame_type: int, message: Record) -> None:
        """Send a JSON message in one frame."""
        self.send(frame_type, encode(message))

    def offer_exit(self, code: int) -> None:
        """Send EXIT without waiting, as ``offer`` does."""
        self.offer(FrameType.EXIT, frames.encode_exit(code)[frames.HEADER_SIZE :])

    def send_exit(self, code: int) -> None:
        """Send EXIT."""
        self._send_all(frames.encode_exit(code))

    def send_error(self, text: str) -> None:
        """Send ERROR, which ends the operation."""
        self._send_all(frames.encode_error(text))

    @property
    def backlog(self) -> bool:
        """True while queued bytes wait for the peer to read."""
        return bool(self._pending)

    def offer(self, frame_type: int, payload: bytes | bytearray | memoryview = b"") -> None:
        """Send a frame without waiting; what the peer does not take now is copied and left to ``flush``.

        Call it only without backlog, or with small frames: the queue is not bounded here.

        Raises:
            PeerGone: the connection broke.
        """
        header = frames.encode_header(frame_type, len(payload))
        sent = 0
        if not self._pending:
            try:
                sent = self.socket.sendmsg((header, payload), (), socket.MSG_DONTWAIT)
            except BlockingIOError:
                pass
            except OSError as error:
                raise PeerGone(str(error)) from error
            if sent == len(header) + len(payload):
                return
        self._pending.append(memoryview(b"".join((header, payload)))[sent:])

    def flush(self) -> None:
        """Send queued bytes, without waiting, as far as the peer takes them.

        Raises:
            PeerGone: the connection broke.
        """
        while self._pending:
            first = self._pending[0]
            try:
                sent = self.socket.send(first, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            except OSError as error:
                raise PeerGone(str(error)) from error
            if sent < len(first):
                self._pending[0] = first[sent:]
                return
            self._pending.popleft()

    def probe(self) -> None:
        """Make a peer that has gone for good say so, by a frame that every client skips.

        TCP cannot tell ``shutdown`` from ``close`` of the other side: both are a FIN. Only data sent to a closed
        socket is answered, by a reset (RFC 9293, 3.10.7.1), and that reaches us as ``PeerGone`` or POLLHUP.
        """
        if not self._pending:
            self.offer(FrameType.PROBE)

    def close(self) -> None:
        """End the connection without losing what was sent: wait a moment for the peer to close first.

        Closing a TCP socket with unread input resets it, and a reset destroys the replies the peer has not read yet.
        """
        try:
            self.socket.shutdown(socket.SHUT_WR)
            dropped, end = 0, time.monotonic() + _MAX_LINGER_S
            while dropped < _LINGER_BYTES:
                self._wait_readable(min(time.monotonic() + _LINGER_S, end))
                if not (data := self.socket.recv(_RECEIVE_BYTES)):
                    break
                dropped += len(data)
        except OSError:
            pass  # a peer that is gone or silent needs no farewell; TimeoutError is an OSError
        finally:
            self.socket.close()

    def _receive(self, flags: int) -> bool:
        try:
            data = self.socket.recv(_RECEIVE_BYTES, flags)
        except BlockingIOError:
            raise
        except OSError as error:
            raise PeerGone(str(error)) from error
        if not data:
            return False
        self._decoder.feed(data)
        return True

    def _wait_readable(self, deadline: float) -> None:
        poller = select.poll()
        poller.register(self.socket, select.POLLIN)
        if not poller.poll(max(0.0, deadline - time.monotonic()) * 1000):
            raise TimeoutError

    def _send_all(self, data: bytes | memoryview) -> None:
        try:
            self.socket.sendall(data)
        except OSError as error:
            raise PeerGone(str(error)) from error
