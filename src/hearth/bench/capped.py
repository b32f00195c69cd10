"""A relay on loopback: it holds each connection to a rate, as many object stores do, counts what passes, and is cut.

The kernel moves the bytes and keeps the pace, so that the relay takes next to nothing of what is measured.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import socket
import threading
from collections.abc import Iterator
from urllib.parse import urlsplit

from hearth.bench.s3_server import S3Server

PIECE_BYTES = 256 * 1024
TIMEOUT_S = 60.0
SO_MAX_PACING_RATE = 47
"""asm-generic/socket.h; bytes a second, see socket(7)"""


@contextlib.contextmanager
def capped(server: S3Server, *, bytes_per_s: int) -> Iterator[S3Server]:
    """Give the same server by way of the relay; requests pass at once, answers at the rate."""
    with relayed(server, bytes_per_s=bytes_per_s) as (there, _):
        yield there


@contextlib.contextmanager
def relayed(server: S3Server, *, bytes_per_s: int | None = None) -> Iterator[tuple[S3Server, Relay]]:
    """Give the same server by way of a relay, and the relay."""
    parts = urlsplit(server.endpoint)
    relay = Relay((parts.hostname or "", parts.port or 80), bytes_per_s)
    try:
        yield dataclasses.replace(server, endpoint=f"http://127.0.0.1:{relay.port}"), relay
    finally:
        relay.end()


class Relay:
    """``down_bytes`` counts what came from the server. After ``cut_after`` of them nobody gets any more."""

    def __init__(self, there: tuple[str, int], bytes_per_s: int | None) -> None:
        self.down_bytes = 0
        self.cut_after: int | None = None
        self._there, self._bytes_per_s = there, bytes_per_s
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: int = self._listener.getsockname()[1]
        self._accepting = threading.Thread(target=self._accept, name="relay")
        self._accepting.start()

    def end(self) -> None:
        """Hang up on everybody."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._accepting.join()
        self._listener.close()
        self._hang_up()
        for thread in self._threads:
            thread.join()
        for one in self._sockets:
            one.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            if self._is_cut(0):
                near.close()
                continue
            far = socket.create_connection(self._there, TIMEOUT_S)
            far.settimeout(None)  # splice(2) is to wait, as it does on a socket that blocks
            if self._bytes_per_s is not None:
                near.setsockopt(socket.SOL_SOCKET, SO_MAX_PACING_RATE, self._bytes_per_s)
            self._sockets += [near, far]
            for words in ((near, far, False), (far, near, True)):
                thread = threading.Thread(target=self._carry, args=words, name="relay")
                self._threads.append(thread)
                thread.start()

    def _carry(self, source: socket.socket, sink: socket.socket, is_down: bool) -> None:
        reader, writer = os.pipe()
        try:
            with contextlib.suppress(OSError):
                while left := os.splice(source.fileno(), writer, PIECE_BYTES):
                    if is_down and self._is_cut(left):
                        self._hang_up()
                        return
                    while left:
                        left -= os.splice(reader, sink.fileno(), left)
            with contextlib.suppress(OSError):
                sink.shutdown(socket.SHUT_WR)
        finally:
            os.close(reader)
            os.close(writer)

    def _is_cut(self, size: int) -> bool:
        with self._lock:
            if self.cut_after is not None and self.down_bytes + size > self.cut_after:
                self.cut_after = self.down_bytes - 1  # for whoever comes after that, too
                return True
            self.down_bytes += size
            return False

    def _hang_up(self) -> None:
        for one in list(self._sockets):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
