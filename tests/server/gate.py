"""A gate in front of a server on loopback: once so much has come through, nothing more does before it is opened."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

READ_BYTES = 65_536
LOOK_S = 0.05
HELD_S = 240.0


class Gate:
    """``port`` leads to the server; ``passed`` is set once as many bytes as may have come back from it."""

    def __init__(self, host: str, port: int, limit_bytes: int) -> None:
        self.passed = threading.Event()
        self._target = (host, port)
        self._left_bytes = limit_bytes
        self._lock = threading.Lock()
        self._opened = threading.Event()
        self._closed = threading.Event()
        self._carriers: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(LOOK_S)
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, name="gate")
        self._thread.start()

    def open(self) -> None:
        self._opened.set()

    def close(self) -> None:
        self._closed.set()
        self._opened.set()
        self._thread.join()
        for carrier in self._carriers:
            carrier.join()
        self._listener.close()

    def _serve(self) -> None:
        while not self._closed.is_set():
            try:
                ours, _ = self._listener.accept()
            except TimeoutError:
                continue
            theirs = socket.create_connection(self._target)
            carrier = threading.Thread(target=self._pair, args=(ours, theirs), name="gate pair")
            self._carriers.append(carrier)
            carrier.start()

    def _pair(self, ours: socket.socket, theirs: socket.socket) -> None:
        with ours, theirs:
            for each in (ours, theirs):
                each.settimeout(LOOK_S)
            back = threading.Thread(target=self._carry, args=(theirs, ours, True), name="gate back")
            back.start()
            self._carry(ours, theirs, False)
            back.join()

    def _carry(self, source: socket.socket, target: socket.socket, is_answer: bool) -> None:
        with contextlib.suppress(OSError):
            while not self._closed.is_set():
                try:
                    data = source.recv(READ_BYTES)
                except TimeoutError:
                    continue
                if not data:
                    break
                if is_answer:
                    self._let(len(data))
                target.settimeout(HELD_S)
                target.sendall(data)
                target.settimeout(LOOK_S)
        for each in (source, target):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def _let(self, count: int) -> None:
        with self._lock:
            self._left_bytes -= count
            is_over = self._left_bytes < 0
        if is_over:
            self.passed.set()
            self._opened.wait(HELD_S)


@contextlib.contextmanager
def gate(host: str, port: int, limit_bytes: int) -> Iterator[Gate]:
    """Give a gate that goes with the test."""
    made = Gate(host, port, limit_bytes)
    try:
        yield made
    finally:
        made.close()
