"""A TCP relay on loopback that stands for the network: held, cut, restored and counted as a test wants it."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from tests.ports import free_port

PIECE_BYTES = 16 * 1024
WAIT_S = 120.0


class Relay:
    """Passes connections on to a server.

    ``down_bytes`` counts what servers sent to clients; nothing more passes than up to ``hold_at``, where it is set.
    """

    def __init__(self, there: tuple[str, int]) -> None:
        self.down_bytes = 0
        self._to = there
        self._changed = threading.Condition()
        self._hold_at: int | None = None
        self._is_held = False
        self._sockets: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", free_port()), backlog=64)
        self.port: int = self._listener.getsockname()[1]  # nobody else is given it while we do not listen
        self._accepting = self._start()

    def hold(self, *, after_bytes: int) -> None:
        """Let that many bytes more pass to clients, and then nothing; what was held before goes on up to there."""
        with self._changed:
            self._hold_at, self._is_held = self.down_bytes + after_bytes, False
            self._changed.notify_all()

    def wait_until_held(self) -> None:
        """Wait until somebody has been sent all that may pass."""
        with self._changed:
            assert self._changed.wait_for(lambda: self._is_held, WAIT_S), f"only {self.down_bytes} bytes passed"

    def release(self) -> None:
        """Let everything pass again."""
        with self._changed:
            self._hold_at = None
            self._changed.notify_all()

    def cut(self) -> None:
        """Hang up on everybody and refuse whoever comes."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._accepting.join()
        self._listener.close()
        with self._changed:
            for one in self._sockets:
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)
            self._hold_at = None  # what was held finds its sockets shut
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()
        self._threads.clear()

    def restore(self, endpoint: str | None = None) -> None:
        """Serve again on the same port, from now on perhaps by way of another server."""
        self._to = _address(endpoint) if endpoint is not None else self._to
        self._listener = socket.create_server(("127.0.0.1", self.port), backlog=64)
        self._accepting = self._start()

    def _start(self) -> threading.Thread:
        thread = threading.Thread(target=self._accept, name="relay")
        thread.start()
        return thread

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(self._to, WAIT_S)
            except OSError:
                near.close()
                continue
            with self._changed:
                self._sockets |= {near, far}
            ended = threading.Barrier(2)
            for words in ((near, far, False, ended), (far, near, True, ended)):
                thread = threading.Thread(target=self._carry, args=words, name="relay")
                self._threads.append(thread)
                thread.start()

    def _carry(self, source: socket.socket, sink: socket.socket, is_down: bool, ended: threading.Barrier) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(PIECE_BYTES):
                if is_down:
                    self._let_pass(len(data))
                sink.sendall(data)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)
        if ended.wait(WAIT_S) == 0:
            with self._changed:
                self._sockets -= {source, sink}
            source.close()
            sink.close()

    def _let_pass(self, size: int) -> None:
        with self._changed:
            while self._hold_at is not None and self.down_bytes + size > self._hold_at:
                self._is_held = True
                self._changed.notify_all()
                assert self._changed.wait(WAIT_S), "nobody let it pass"
            self.down_bytes += size


def _address(endpoint: str) -> tuple[str, int]:
    parts = urlsplit(endpoint)
    if parts.scheme != "http":
        pytest.skip(f"{endpoint} speaks TLS, through which nothing can be cut in the right place")
    return parts.hostname or "", parts.port or 80


@contextlib.contextmanager
def relay(endpoint: str) -> Iterator[Relay]:
    """Pass connections on to a server until the end; skips the test where nothing can be put between (TLS)."""
    made = Relay(_address(endpoint))
    try:
        yield made
    finally:
        made.release()
        with contextlib.suppress(OSError):  # it may be cut already
            made.cut()
