"""A program in the agent's place: a Unix socket whose every connection runs a script, right or wrong. It has threads of
its own, so that what it floods or withholds is real to the loop under test.
"""

from __future__ import annotations

import socket
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from hearth.guest.dial import UnixDialer
from hearth.wire import frames, messages
from hearth.wire.frames import Decoder, Frame, FrameType
from hearth.wire.record import Record

PEER_TIMEOUT_S = 60.0


class Caller:
    """The accepted connection, as a script uses it. Errors of the socket end the script, as the host may leave."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self._decoder = Decoder()

    def read(self) -> Frame:
        """Wait for the host's next frame."""
        while (frame := self._decoder.next()) is None:
            data = self.socket.recv(65_536)
            if not data:
                raise ConnectionResetError("the host has gone")
            self._decoder.feed(data)
        return frame

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def reply(self, frame_type: FrameType, message: Record | Sequence[Record]) -> None:
        body = messages.encode(message) if isinstance(message, Record) else messages.encode_list(message)
        self.send(frames.encode(frame_type, body))

    def read_until_gone(self) -> list[Frame]:
        """Collect frames until the host closes."""
        received = []
        with suppress(ConnectionResetError):
            while True:
                received.append(self.read())
        return received


Script = Callable[[Caller], None]


class Peer:
    """Serves connections with a script."""

    def __init__(self, path: Path) -> None:
        self.dialer = UnixDialer(control=path, forward=path)
        self.script: Script = lambda caller: None
        self.failures: list[BaseException] = []
        self.released = threading.Event()
        """Set by a test to let scripts end that wait for it; set at the end in any case."""
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(64)
        self._threads = [threading.Thread(target=self._accept, name="peer")]
        self._threads[0].start()

    def serve(self, script: Script) -> None:
        """Use this script for connections from now on."""
        self.script = script

    def close(self) -> None:
        """Stop accepting and wait for all scripts."""
        self.released.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._listener.close()
        for failure in self.failures:
            raise failure

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._run, args=(sock, self.script), name="peer script")
            self._threads.append(thread)
            thread.start()

    def _run(self, sock: socket.socket, script: Script) -> None:
        sock.settimeout(PEER_TIMEOUT_S)
        try:
            script(Caller(sock))
        except (ConnectionResetError, BrokenPipeError):
            pass
        except BaseException as error:  # noqa: BLE001 -- the thread ends here; the test shows the failure
            self.failures.append(error)
        finally:
            sock.close()


@contextmanager
def listening_peer() -> Iterator[Peer]:
    """Give a peer on a socket of its own, and close it."""
    with tempfile.TemporaryDirectory(prefix="hp-") as directory:
        peer = Peer(Path(directory) / "s")
        try:
            yield peer
        finally:
            peer.close()
