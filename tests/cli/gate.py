"""A daemon's socket behind a gate: the answer to one request is held back, so an interrupt finds its caller waiting."""

from __future__ import annotations

import contextlib
import socket
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

GATE_TIMEOUT_S = 60.0


class Gate:
    """Passes requests on; ``reached`` is set once the daemon has answered ``held``, which the caller never hears."""

    def __init__(self, path: Path, daemon: Path, held: bytes) -> None:
        self.url = f"unix:{path}"
        self.reached = threading.Event()
        self._daemon = daemon
        self._held = held
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(16)
        self._threads = [threading.Thread(target=self._accept, name="gate")]
        self._threads[0].start()

    def close(self) -> None:
        """Stop accepting and wait until all callers have left."""
        self._listener.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                caller, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(caller,), name="gate caller")
            self._threads.append(thread)
            thread.start()

    def _serve(self, caller: socket.socket) -> None:
        with caller, socket.socket(socket.AF_UNIX) as daemon:
            daemon.connect(str(self._daemon))
            caller.settimeout(GATE_TIMEOUT_S)
            asked = threading.Event()
            answers = threading.Thread(target=self._answer, args=(daemon, caller, asked), name="gate answers")
            answers.start()
            with contextlib.suppress(OSError):
                while data := caller.recv(65_536):
                    if data.startswith(self._held):
                        asked.set()
                    daemon.sendall(data)
            daemon.shutdown(socket.SHUT_RDWR)
            answers.join()

    def _answer(self, daemon: socket.socket, caller: socket.socket, asked: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while data := daemon.recv(65_536):
                if asked.is_set():
                    self.reached.set()
                else:
                    caller.sendall(data)


@contextlib.contextmanager
def gate_before(daemon: Path, path: str) -> Iterator[Gate]:
    """Give a gate before a daemon's socket, which holds what is posted to ``path``, and close it."""
    with tempfile.TemporaryDirectory(prefix="hg-") as directory:
        gate = Gate(Path(directory) / "s", daemon, f"POST /api/v1{path} HTTP".encode())
        try:
            yield gate
        finally:
            gate.close()
