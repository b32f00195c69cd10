"""``api.health``, ``api.list``, ``api.reads``, ``api.events``: what is asked all the time, by the leanest client.

The reference is a server that answers the same number of bytes and looks nothing up.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from hearth.bench import processes
from hearth.bench.daemon import Daemon, data_directory, serving
from hearth.bench.row import Measurement, Row, at_most
from hearth.bench.samples import Effort, SampleFailed, alternate, timed
from hearth.config import DataDirectory
from hearth.host.directory import prepare_directory
from hearth.host.identity import new_sandbox_id
from hearth.model import Sandbox, SandboxSpec, SandboxState
from hearth.store.base import FIRST_PAGE
from hearth.store.sql import open_store
from hearth.store.sqlite import sqlite_url

TIMEOUT_S = 30.0
SANDBOXES = 1000
CONNECTIONS = 8
ROUNDS = 25
"""Requests that each connection has sent when a sample of ``api.reads`` ends."""
SUBSCRIBERS = 100
END_OF_HEAD = b"\r\n\r\n"
NO_LIMITS = tuple(word for name in ("create", "use", "read", "address") for word in ("--rate", f"{name}=none"))


class Line:
    """One kept connection that sends the same request again and again."""

    def __init__(self, connection: socket.socket, request: bytes) -> None:
        connection.settimeout(TIMEOUT_S)
        self._connection = connection
        self._request = request
        self._rest = b""

    def send(self) -> None:
        """Send the request."""
        self._connection.sendall(self._request)

    def receive(self) -> int:
        """Read one whole answer with a Content-Length and give that, in bytes."""
        data = self._rest
        while END_OF_HEAD not in data:
            data += self._more()
        head, _, body = data.partition(END_OF_HEAD)
        if not head.startswith(b"HTTP/1.1 200 "):
            raise SampleFailed(f"answered by {head[:200]!r}")
        size = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        while len(body) < size:
            body += self._more()
        self._rest = body[size:]
        return size

    def wait_for(self, end: bytes) -> None:
        """Read until a piece that ends so has come."""
        data = self._rest
        while not data.endswith(end):
            data += self._more()
        self._rest = b""

    def _more(self) -> bytes:
        data = self._connection.recv(1_048_576)
        if not data:
            raise SampleFailed("the connection ended")
        return data


def measure_health(effort: Effort) -> Measurement:
    """Ask for /health."""
    with _stage(0) as daemon, processes.http_peer() as port, _line(daemon, "GET", "/health") as ours:
        ours.send()
        with _peer(port, ours.receive()) as theirs:
            samples = effort.samples(2000, 200, warm_up=20)
            measured, reference = alternate(timed(_exchange(ours)), timed(_exchange(theirs)), samples)
    return Measurement(measured=measured, reference=reference)


def measure_list(effort: Effort) -> Measurement:
    """List a thousand sandboxes in one page."""
    path = f"/api/v1/sandboxes?limit={SANDBOXES}"
    with _stage(SANDBOXES) as daemon, processes.http_peer() as port, _line(daemon, "GET", path) as ours:
        ours.send()
        size = ours.receive()
        with _peer(port, size) as theirs:
            samples = effort.samples(200, 20, warm_up=3)
            measured, reference = alternate(timed(_exchange(ours)), timed(_exchange(theirs)), samples)
    return Measurement(measured=measured, reference=reference, note=f"{size // 1024} KiB of JSON")


def measure_reads(effort: Effort) -> Measurement:
    """Read jobs' and volumes' empty lists over several connections, the daemon on one core; a time for each request."""
    with _stage(0) as daemon, processes.http_peer() as port, contextlib.ExitStack() as opened:
        _keep_on_one_core(daemon.pid)
        ours = [opened.enter_context(_line(daemon, "GET", "/api/v1/volumes?limit=1")) for _ in range(CONNECTIONS)]
        ours[0].send()
        size = ours[0].receive()
        theirs = [opened.enter_context(_peer(port, size)) for _ in range(CONNECTIONS)]

        def each(lines: list[Line]) -> float:
            return timed(lambda: _together(lines))() / (CONNECTIONS * ROUNDS)

        measured, reference = alternate(lambda: each(ours), lambda: each(theirs), effort.samples(100, 10, warm_up=3))
    rate = 1 / measured.percentile_s(50) if measured.durations_s else 0.0
    return Measurement(measured=measured, reference=reference, note=f"{rate:.0f} requests/s on one core")


def measure_events(effort: Effort) -> Measurement:
    """Change a label, and wait until every subscriber has heard of it; beside the change alone, heard by nobody."""
    body = b'{"labels_add":{"round":"1"}}'
    with _stage(2) as daemon, contextlib.ExitStack() as opened:
        ids = _ids(daemon)
        heard, unheard = (
            opened.enter_context(_line(daemon, "PATCH", f"/api/v1/sandboxes/{each}", body)) for each in ids
        )
        path = f"/api/v1/events?type=sandbox.changed&subject={ids[0]}"
        streams = [opened.enter_context(_line(daemon, "GET", path)) for _ in range(SUBSCRIBERS)]
        for stream in streams:
            stream.send()
            stream.wait_for(b"retry: 2000\n\n\r\n")

        def tell() -> None:
            heard.send()
            heard.receive()
            for stream in streams:
                stream.wait_for(b"\n\n\r\n")

        samples = effort.samples(200, 20, warm_up=3)
        measured, reference = alternate(timed(tell), timed(_exchange(unheard)), samples)
    return Measurement(measured=measured, reference=reference)


def _exchange(line: Line) -> Callable[[], None]:
    def exchange() -> None:
        line.send()
        line.receive()

    return exchange


def _together(lines: list[Line]) -> None:
    """Have one request of each connection under way, again and again."""
    for _ in range(ROUNDS):
        for line in lines:
            line.send()
        for line in lines:
            line.receive()


@contextlib.contextmanager
def _stage(count: int) -> Iterator[Daemon]:
    """Give a daemon that knows ``count`` sandboxes, whose machines ended."""
    with data_directory() as data:
        with serving(data, "local"):
            """It makes the database and its administrator."""
        asyncio.run(_know(prepare_directory(data), count))
        with serving(data, "local", *NO_LIMITS, "--quota", "sandboxes=none", "--log-level", "warning") as daemon:
            yield daemon


async def _know(data: DataDirectory, count: int) -> None:
    store = await open_store(sqlite_url(data.database))
    try:
        (owner,) = (await store.users.list(FIRST_PAGE)).items
        for number in range(count):
            spec = SandboxSpec(name=f"bench-{number}", labels={"bench": str(number)})
            row = Sandbox(
                id=new_sandbox_id(),
                owner=owner.id,
                spec=spec,
                state=SandboxState.FAILED,
                created_at=datetime.now(UTC),
            )
            await store.sandboxes.create(row)
    finally:
        await store.close()


def _ids(daemon: Daemon) -> list[str]:
    with daemon.client() as client:
        return [sandbox.id for sandbox in client.list()]


@contextlib.contextmanager
def _line(daemon: Daemon, method: str, path: str, body: bytes = b"") -> Iterator[Line]:
    token = daemon.data.admin_key.read_text().strip()
    head = f"{method} {path} HTTP/1.1\r\nHost: hearth\r\nAuthorization: Bearer {token}\r\n"
    told = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n" if body else ""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(daemon.data.api_socket))
        yield Line(connection, f"{head}{told}\r\n".encode() + body)


@contextlib.contextmanager
def _peer(port: int, size: int) -> Iterator[Line]:
    with socket.create_connection(("127.0.0.1", port), TIMEOUT_S) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield Line(connection, f"GET /{size} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())


def _keep_on_one_core(pid: int) -> None:
    """Let all threads of a process, and those it starts, run on one core alone."""
    core = min(os.sched_getaffinity(0))
    for task in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(task.name), {core})


ROWS = (
    Row(
        name="api.health",
        what="GET /health over a kept connection",
        reference="as many bytes from a bare HTTP server",
        goals=at_most(p50_ms=1),
        measure=measure_health,
    ),
    Row(
        name="api.list",
        what=f"GET /sandboxes, a page of {SANDBOXES}",
        reference="as many bytes from a bare HTTP server",
        goals=at_most(p50_ms=15),
        measure=measure_list,
    ),
    Row(
        name="api.reads",
        what=f"small reads over {CONNECTIONS} connections, each; the daemon on one core",
        reference="as many bytes from a bare HTTP server",
        goals=at_most(p50_ms=0.5),
        measure=measure_reads,
    ),
    Row(
        name="api.events",
        what=f"a change until {SUBSCRIBERS} subscribers have heard of it",
        reference="a change nobody hears of",
        goals=at_most(p50_ms=50),
        measure=measure_events,
    ),
)
