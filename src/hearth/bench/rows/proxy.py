"""``proxy.*``: requests through the API to a server in a sandbox, beside the same requests through a bare forward."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

from hearth.bench import processes
from hearth.bench.daemon import Daemon, sandbox
from hearth.bench.link import RECEIVE_BYTES, TIMEOUT_S
from hearth.bench.row import Measurement, Row, at_least, at_most
from hearth.bench.rows.agent import MEGABYTE, bulk_size
from hearth.bench.samples import Effort, SampleFailed, alternate, timed
from hearth.sdk.client import Sandbox
from hearth.wire import frames
from hearth.wire.frames import FrameType
from hearth.wire.messages import ForwardRequest, Status, encode

SMALL_BYTES = 1024
END_OF_HEAD = b"\r\n\r\n"


def measure_get(effort: Effort) -> Measurement:
    """Fetch 1 KiB over a kept connection to the daemon, and over a new forward of an agent."""
    with _stage() as (daemon, machine, forward, port):
        request = _request(daemon, machine, port, SMALL_BYTES)
        bare = _request(None, machine, port, SMALL_BYTES)
        with _connected(daemon.data.api_socket) as connection:

            def through_proxy() -> None:
                connection.sendall(request)
                _receive(connection, SMALL_BYTES)

            def through_forward() -> None:
                with _forwarded(forward, port) as stream:
                    stream.sendall(bare)
                    _receive(stream, SMALL_BYTES)

            ours, theirs = alternate(
                timed(through_proxy), timed(through_forward), effort.samples(2000, 200, warm_up=50)
            )
    return Measurement(measured=ours, reference=theirs)


def measure_bulk(effort: Effort) -> Measurement:
    """Fetch many bytes over a kept connection to the daemon, and over a new forward of an agent."""
    size = bulk_size(effort)
    with _stage() as (daemon, machine, forward, port):
        request = _request(daemon, machine, port, size)
        bare = _request(None, machine, port, size)
        with _connected(daemon.data.api_socket) as connection:

            def through_proxy() -> None:
                connection.sendall(request)
                _receive(connection, size)

            def through_forward() -> None:
                with _forwarded(forward, port) as stream:
                    stream.sendall(bare)
                    _receive(stream, size)

            ours, theirs = alternate(timed(through_proxy), timed(through_forward), effort.samples(20, 3))
    return Measurement(measured=ours, reference=theirs, megabytes=size / MEGABYTE)


@contextlib.contextmanager
def _stage() -> Iterator[tuple[Daemon, Sandbox, Path, int]]:
    """Give a daemon with a bare agent, that agent's like for the reference, and a server that both lead to."""
    with (
        processes.http_peer() as port,
        processes.agent() as agent,
        sandbox("local", "bench-proxy") as (daemon, _client, machine),
    ):
        yield daemon, machine, agent.forward, port


def _request(daemon: Daemon | None, machine: Sandbox, port: int, size: int) -> bytes:
    """Write the request: to the daemon with its token, else as the server itself would get it."""
    if daemon is None:
        return f"GET /{size} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    token = daemon.data.admin_key.read_text().strip()
    path = f"/api/v1/sandboxes/{machine.id}/proxy/{port}/{size}"
    return f"GET {path} HTTP/1.1\r\nHost: hearth\r\nAuthorization: Bearer {token}\r\n\r\n".encode()


@contextlib.contextmanager
def _connected(path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(TIMEOUT_S)
        connection.connect(str(path))
        yield connection


@contextlib.contextmanager
def _forwarded(path: Path, port: int) -> Iterator[socket.socket]:
    """Connect to a port through an agent."""
    expected = frames.encode(FrameType.FWD_RESP, encode(Status(status="ok")))
    with _connected(path) as connection:
        connection.sendall(frames.encode(FrameType.FWD_REQ, encode(ForwardRequest(port=port))))
        answer = b""
        while len(answer) < len(expected) and (data := connection.recv(len(expected) - len(answer))):
            answer += data
        if answer != expected:
            raise SampleFailed(f"the forward was answered by {answer[:200]!r}")
        yield connection


def _receive(connection: socket.socket, size: int) -> None:
    """Read one answer with a body of ``size`` bytes."""
    head = b""
    while END_OF_HEAD not in head:
        data = connection.recv(65_536)
        if not data:
            raise SampleFailed("the connection ended in the head of an answer")
        head += data
    if not head.startswith(b"HTTP/1.1 200 "):
        raise SampleFailed(f"answered by {head[:200]!r}")
    left = size - len(head.partition(END_OF_HEAD)[2])
    buffer = bytearray(RECEIVE_BYTES)
    while left > 0 and (received := connection.recv_into(buffer, min(left, len(buffer)))):
        left -= received
    if left:
        raise SampleFailed(f"{left} bytes are missing")


ROWS = (
    Row(
        name="proxy.get",
        what="GET of 1 KiB from a server in a sandbox, through the API's proxy",
        reference="the same request through a bare forward",
        goals=at_most(added_ms=3),
        measure=measure_get,
    ),
    Row(
        name="proxy.bulk",
        what="bytes from a server in a sandbox, through the API's proxy",
        reference="the same request through a bare forward",
        goals=at_least(mb_per_s=200),
        measure=measure_bulk,
    ),
)
