"""Both ends of a proxied exchange as bare sockets: servers that follow a script, clients that say what they like."""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from tests.server.daemon import RunningDaemon

TIMEOUT_S = 60.0
Script = Callable[[socket.socket], None]


@dataclass
class GuestServer:
    """A server in the sandbox; ``connections`` counts those that came."""

    port: int
    connections: int = 0
    errors: list[Exception] = field(default_factory=list)
    accepted: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))


@contextlib.contextmanager
def serving(script: Script, *, is_ended_by_peer: bool = False) -> Iterator[GuestServer]:
    """Run ``script`` for each connection, in a thread of its own; what it raises fails the test at the end.

    Args:
        is_ended_by_peer: at the end wait until the proxy has closed every connection, whatever it keeps.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = GuestServer(port=listener.getsockname()[1])
        threads: list[threading.Thread] = []
        connections: list[socket.socket] = []

        def run(connection: socket.socket) -> None:
            with connection:
                connection.settimeout(TIMEOUT_S)
                try:
                    script(connection)
                except Exception as error:  # noqa: BLE001 -- the thread ends here; the test tells
                    server.errors.append(error)

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    connections.append(connection)
                    server.connections += 1
                    server.accepted.release()
                    threads.append(threading.Thread(target=run, args=(connection,)))
                    threads[-1].start()

        accepting = threading.Thread(target=accept)
        accepting.start()
        try:
            yield server
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            accepting.join()
            for connection in () if is_ended_by_peer else connections:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RD)
            for thread in threads:
                thread.join(TIMEOUT_S)
    if server.errors:
        raise server.errors[0]


def read_head(connection: socket.socket) -> bytes:
    """Read to the end of a head, byte by byte so that nothing behind it is taken; empty when the connection ended."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        piece = connection.recv(1)
        if not piece:
            return head
        head += piece
    return head


def read_until(connection: socket.socket, end: bytes) -> bytes:
    """Read until ``end`` has come."""
    data = b""
    while not data.endswith(end):
        piece = connection.recv(65_536)
        assert piece, f"the connection ended after {data[-200:]!r}"
        data += piece
    return data


def read_rest(connection: socket.socket) -> bytes:
    """Read to the end of the connection; a reset is an end, too."""
    data = b""
    with contextlib.suppress(ConnectionError):
        while piece := connection.recv(65_536):
            data += piece
    return data


def answering(answer: bytes) -> Script:
    """Answer every request head the same."""

    def script(connection: socket.socket) -> None:
        while read_head(connection):
            connection.sendall(answer)

    return script


def sized(body: bytes, *, status: str = "200 OK") -> bytes:
    """Give an answer with its length."""
    return b"HTTP/1.1 %b\r\nContent-Length: %d\r\n\r\n%b" % (status.encode(), len(body), body)


@dataclass(frozen=True)
class Caller:
    """Knows the way to the proxy of one sandbox's port."""

    daemon: RunningDaemon
    port: int
    sandbox: str = "shared"

    @property
    def base(self) -> str:
        return f"/api/v1/sandboxes/{self.sandbox}/proxy/{self.port}"

    def head(self, method: str = "GET", path: str = "/", *lines: str, version: str = "1.1") -> bytes:
        """Give a request head with the token."""
        fields = ["Host: hearth", f"Authorization: Bearer {self.daemon.token}", *lines]
        return "\r\n".join([f"{method} {self.base}{path} HTTP/{version}", *fields, "", ""]).encode("latin-1")

    @contextlib.contextmanager
    def connected(self) -> Iterator[socket.socket]:
        """Connect to the daemon."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(TIMEOUT_S)
            connection.connect(str(self.daemon.data.api_socket))
            yield connection

    def ask(self, request: bytes) -> tuple[http.client.HTTPResponse, bytes]:
        """Send one request and give the answer, whole."""
        with self.connected() as connection:
            connection.sendall(request)
            return answer_of(connection)


def answer_of(connection: socket.socket, method: str = "GET") -> tuple[http.client.HTTPResponse, bytes]:
    """Read an answer with the standard library's client."""
    answer = http.client.HTTPResponse(connection, method=method)
    answer.begin()
    return answer, answer.read()


def fields_of(head: bytes) -> list[tuple[str, str]]:
    """Take a head's fields apart, names in lower case."""
    lines = head.decode("latin-1").split("\r\n")[1:-2]
    return [(name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]
