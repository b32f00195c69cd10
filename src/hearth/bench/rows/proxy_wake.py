"""``proxy.warm_wake``: a stranger's request that finds the machine paused, beside its owner's that finds it running."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass

from hearth.bench.daemon import Daemon, data_directory, serving
from hearth.bench.house import need_root
from hearth.bench.link import TIMEOUT_S
from hearth.bench.row import Measurement, Row, at_most
from hearth.bench.samples import Effort, SampleFailed, alternate
from hearth.sdk.client import Sandbox

OPTIONS = ("--pool", "0", "--idle-pause", "3600")
PORT = 3000
SERVER = f"""
use IO::Socket::INET;
my $listener = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => {PORT}, Listen => 16, ReuseAddr => 1);
while (my $connection = $listener->accept) {{
    while (my $line = <$connection>) {{ last if $line eq "\\r\\n"; }}
    print $connection "HTTP/1.1 200 OK\\r\\nContent-Length: 1024\\r\\nConnection: close\\r\\n\\r\\n" . ("x" x 1024);
    close $connection;
}}
"""
START = 'setsid perl -e "$1" >/dev/null 2>&1 </dev/null &'
LISTENS_S = 60.0


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A machine with a server that is published."""

    daemon: Daemon
    sandbox: Sandbox
    alias: str

    def visit(self) -> float:
        """Fetch 1 KiB as everybody does; gives how long it took, in seconds."""
        return self._fetch(f"/p/{self.alias}/", "")

    def fetch(self) -> float:
        """Fetch it through the API as the owner does."""
        token = self.daemon.data.admin_key.read_text().strip()
        path = f"/api/v1/sandboxes/{self.sandbox.id}/proxy/{PORT}/"
        return self._fetch(path, f"Authorization: Bearer {token}\r\n")

    def _fetch(self, path: str, lines: str) -> float:
        request = f"GET {path} HTTP/1.1\r\nHost: hearth\r\n{lines}Connection: close\r\n\r\n".encode()
        started = time.perf_counter()
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(TIMEOUT_S)
            connection.connect(str(self.daemon.data.api_socket))
            connection.sendall(request)
            answer = b""
            while data := connection.recv(65_536):
                answer += data
        took_s = time.perf_counter() - started
        if not answer.startswith(b"HTTP/1.1 200 ") or not answer.endswith(b"x" * 1024):
            raise SampleFailed(f"answered by {answer[:200]!r}")
        return took_s


def measure_warm_wake(effort: Effort) -> Measurement:
    """Visit a paused machine's published port; beside it, fetch the same from the running machine."""
    with _stage() as stage:

        def wake() -> float:
            stage.sandbox.pause()
            return stage.visit()

        ours, theirs = alternate(wake, stage.fetch, effort.samples(50, 5, warm_up=3))
    return Measurement(measured=ours, reference=theirs)


@contextlib.contextmanager
def _stage() -> Iterator[Stage]:
    need_root()
    with data_directory() as data, serving(data, "qemu", *OPTIONS) as daemon, daemon.client() as client:
        sandbox = client.create(name="bench")
        sandbox.run(["sh", "-c", START, "sh", SERVER]).check()
        deadline = time.monotonic() + LISTENS_S
        while PORT not in [each.port for each in client.ports.of(sandbox.id)]:
            if time.monotonic() > deadline:
                raise SampleFailed("the server in the machine does not listen")
        yield Stage(daemon=daemon, sandbox=sandbox, alias=client.ports.publish(sandbox.id, PORT).alias)


ROWS = (
    Row(
        name="proxy.warm_wake",
        what="GET of 1 KiB by the published URL of a paused machine",
        reference="the same from the running machine, through the API's proxy",
        goals=at_most(added_ms=5),
        measure=measure_warm_wake,
    ),
)
