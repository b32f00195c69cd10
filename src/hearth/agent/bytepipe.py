"""Two connected sockets joined into one raw byte stream each way, half-close carried along."""

from __future__ import annotations

import select
import socket
from collections.abc import Callable

_CHUNK_BYTES = 256 * 1024
_DEAD = select.POLLHUP | select.POLLERR | select.POLLNVAL


class _Direction:
    """Bytes from one socket to the other; at most one chunk is held."""

    def __init__(self, source: socket.socket, target: socket.socket, first: bytes = b"") -> None:
        self.source = source
        self.target = target
        self.done = False
        self._buffer = bytearray(_CHUNK_BYTES)
        self._held = memoryview(first)
        self._ended = False

    @property
    def wants_to_read(self) -> bool:
        return not self.done and not self._held and not self._ended

    @property
    def wants_to_write(self) -> bool:
        return not self.done and bool(self._held)

    def read(self) -> None:
        """Take what the source has, and pass it on at once as far as the target takes it."""
        try:
            count = self.source.recv_into(self._buffer, 0, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError:
            count = 0
        if count:
            self._held = memoryview(self._buffer)[:count]
        else:
            self._ended = True
        self.write()

    def write(self) -> None:
        """Pass on what is held; then the end, if it has come."""
        try:
            while self._held:
                self._held = self._held[self.target.send(self._held, socket.MSG_DONTWAIT) :]
            if self._ended and not self.done:
                self.done = True
                self.target.shutdown(socket.SHUT_WR)
        except BlockingIOError:
            return
        except OSError:  # the target is gone: nothing more can be passed on
            self.done = True


def join(left: socket.socket, right: socket.socket, first: bytes, on_bytes: Callable[[], None]) -> None:
    """Move bytes both ways until both have ended, or the side that should get them is gone.

    Args:
        first: bytes of ``left`` that were received already.
        on_bytes: called whenever some have been moved.
    """
    directions = (_Direction(left, right, first), _Direction(right, left))
    alive = {left.fileno(), right.fileno()}
    directions[0].write()
    while not all(direction.done for direction in directions):
        poller = select.poll()
        for sock in (left, right):
            if (events := _events(sock, directions)) or sock.fileno() in alive:
                poller.register(sock, events)
        for descriptor, event in poller.poll():
            for direction in directions:
                if event & (select.POLLIN | _DEAD) and direction.source.fileno() == descriptor:
                    if direction.wants_to_read:
                        direction.read()
                        on_bytes()
                elif event & select.POLLOUT and direction.target.fileno() == descriptor:
                    direction.write()
            if event & _DEAD:
                alive.discard(descriptor)
                for direction in directions:
                    if direction.target.fileno() == descriptor:
                        direction.done = True


def _events(sock: socket.socket, directions: tuple[_Direction, _Direction]) -> int:
    events = 0
    for direction in directions:
        if direction.source is sock and direction.wants_to_read:
            events |= select.POLLIN
        if direction.target is sock and direction.wants_to_write:
            events |= select.POLLOUT
    return events
