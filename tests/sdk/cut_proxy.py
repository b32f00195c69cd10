"""A way to the daemon that a test can cut: whatever goes through it ends at once, and nothing new gets through."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
from pathlib import Path

READ_BYTES = 65_536


class CutProxy:
    """Listens on a Unix socket and carries connections to another."""

    def __init__(self, path: Path, target: Path) -> None:
        self.path = path
        self._target = target
        self._is_open = True
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._lock = threading.Lock()
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        self._listener.listen()
        self._stopping, self._stop = socket.socketpair()
        self._thread = threading.Thread(target=self._serve, name="cut proxy")
        self._thread.start()

    def cut(self, *, stay: bool = False) -> None:
        """End all connections; with ``stay`` new ones are refused until ``mend``."""
        with self._lock:
            self._is_open = not stay
            for pair in self._pairs:
                for each in pair:
                    with contextlib.suppress(OSError):
                        each.shutdown(socket.SHUT_RDWR)

    def mend(self) -> None:
        with self._lock:
            self._is_open = True

    def close(self) -> None:
        self.cut(stay=True)
        self._stop.send(b"x")
        self._thread.join()
        for each in (self._listener, self._stop, self._stopping):
            each.close()

    def _serve(self) -> None:
        carriers: list[threading.Thread] = []
        with selectors.DefaultSelector() as selector:
            selector.register(self._listener, selectors.EVENT_READ)
            selector.register(self._stopping, selectors.EVENT_READ)
            while all(key.fileobj is self._listener for key, _ in selector.select()):
                ours, _ = self._listener.accept()
                with self._lock:
                    if not self._is_open:
                        ours.close()
                        continue
                    theirs = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                    theirs.connect(str(self._target))
                    self._pairs.append((ours, theirs))
                for source, target in ((ours, theirs), (theirs, ours)):
                    carriers.append(threading.Thread(target=_carry, args=(source, target), name="cut proxy carrier"))
                    carriers[-1].start()
        for carrier in carriers:
            carrier.join()
        for pair in self._pairs:
            for each in pair:
                each.close()


def _carry(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(READ_BYTES):
            target.sendall(data)
    for each in (source, target):
        with contextlib.suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
