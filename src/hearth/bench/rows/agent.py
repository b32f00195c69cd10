"""``agent.*``: the agent in test mode on a Unix socket, beside the same work done without an agent."""

from __future__ import annotations

import os
import socket
import struct
import time
import uuid
from collections.abc import Callable
from pathlib import Path

from hearth.bench import processes
from hearth.bench.link import RECEIVE_BYTES, TIMEOUT_S, Link
from hearth.bench.row import Measurement, Row, at_least, at_most
from hearth.bench.samples import Effort, SampleFailed, alternate, timed
from hearth.wire import frames
from hearth.wire.frames import FrameType
from hearth.wire.messages import (
    ExecRequest,
    FileReadRequest,
    FileWriteRequest,
    ForwardRequest,
    SessionInfo,
    decode,
    encode,
)

TRUE = "/bin/true"
KIB = bytes(1024)
MEGABYTE = 10**6
SCROLLBACK_BYTES = 65_536
"""What the protocol has a session keep for whoever attaches."""
REPLY_BYTES = 4096
RECEIVE_TIMEOUT = struct.pack("ll", int(TIMEOUT_S), 0)
"""A struct timeval for SO_RCVTIMEO: Python's own timeout would add a poll to every call."""


def exec_request(*argv: str) -> bytes:
    """Encode a whole exec: the request, and no input."""
    request = frames.encode(FrameType.EXEC_REQ, encode(ExecRequest(argv=list(argv))))
    return request + frames.encode(FrameType.STDIN_EOF)


def exec_true(control: Path) -> Callable[[], None]:
    """Give an action that runs ``/bin/true`` through an agent.

    The answer is known byte by byte, so it is compared and not decoded: a decoder in this process would be timed too.
    """
    path, request, expected = str(control), exec_request(TRUE), frames.encode_exit(0)

    def action() -> None:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, RECEIVE_TIMEOUT)
            sock.connect(path)
            sock.sendall(request)
            answer = sock.recv(REPLY_BYTES)
            while len(answer) < len(expected) and (more := sock.recv(REPLY_BYTES)):
                answer += more
            if answer != expected:
                raise SampleFailed(f"exec of {TRUE} was answered by {answer[:200]!r}")

    return action


def bare_true() -> None:
    """Run ``/bin/true`` by posix_spawn and wait for it."""
    processes.spawn_and_wait((TRUE,))


def measure_exec(effort: Effort) -> Measurement:
    """Run ``/bin/true`` through the agent and by posix_spawn."""
    with processes.agent() as agent:
        ours, theirs = alternate(
            timed(exec_true(agent.control)), timed(bare_true), effort.samples(2000, 150, warm_up=20)
        )
    return Measurement(measured=ours, reference=theirs)


def measure_read(effort: Effort) -> Measurement:
    """Read a file of 1 KiB through the agent and by open, read, close."""
    with processes.agent() as agent, processes.scratch(in_memory=True) as directory:
        path = directory / "file"
        path.write_bytes(KIB)
        request = frames.encode(FrameType.FILE_READ_REQ, encode(FileReadRequest(path=str(path))))

        def through_agent() -> None:
            with Link(agent.control, request) as link:
                link.expect(FrameType.FILE_READ_RESP)
                if sum(map(len, link.until_exit())) != len(KIB):
                    raise SampleFailed("the file came back with another length")

        def bare() -> None:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            os.read(descriptor, 2 * len(KIB))
            os.close(descriptor)

        ours, theirs = alternate(timed(through_agent), timed(bare), effort.samples(2000, 200, warm_up=20))
    return Measurement(measured=ours, reference=theirs)


def measure_write(effort: Effort) -> Measurement:
    """Replace a file of 1 KiB through the agent and by write, fsync, rename."""
    with processes.agent() as agent, processes.scratch(in_memory=True) as directory:
        message = FileWriteRequest(path=str(directory / "ours"), size=len(KIB), mode="0644")
        request = frames.encode(FrameType.FILE_WRITE_REQ, encode(message)) + frames.encode(FrameType.STDIN, KIB)

        def through_agent() -> None:
            with Link(agent.control, request) as link:
                link.expect(FrameType.FILE_WRITE_RESP)

        def bare() -> None:
            write_and_rename(directory / "theirs", KIB)

        ours, theirs = alternate(timed(through_agent), timed(bare), effort.samples(2000, 200, warm_up=20))
        if (directory / "ours").read_bytes() != KIB:
            raise SampleFailed("the file was not written")
    return Measurement(measured=ours, reference=theirs)


def measure_attach(effort: Effort) -> Measurement:
    """Attach to a session with a full scrollback, to its last byte, and receive as many bytes from a bare server."""
    with processes.agent() as agent, processes.tcp_peer(SCROLLBACK_BYTES) as port:
        session_id = _full_session(agent.control)
        request = frames.encode(FrameType.EXEC_REQ, encode(ExecRequest(session_id=session_id)))

        def attach() -> None:
            with Link(agent.control, request) as link:
                link.expect(FrameType.SESSION_INFO)
                size = 0
                while size < SCROLLBACK_BYTES:
                    size += len(link.expect(FrameType.STDOUT))
                _check_size(size, SCROLLBACK_BYTES)

        def bare() -> None:
            with socket.create_connection(("127.0.0.1", port), TIMEOUT_S) as sock:
                size = 0
                while data := sock.recv(RECEIVE_BYTES):
                    size += len(data)
                _check_size(size, SCROLLBACK_BYTES)

        ours, theirs = alternate(timed(attach), timed(bare), effort.samples(1000, 100, warm_up=20))
    return Measurement(measured=ours, reference=theirs)


def _full_session(control: Path) -> str:
    """Start a session, wait until it has written more than a scrollback holds, leave it and give its id."""
    script = f"head -c {2 * SCROLLBACK_BYTES} /dev/zero; exec sleep 1000"
    request = ExecRequest(argv=["/bin/sh", "-c", script], session=True)
    with Link(control, frames.encode(FrameType.EXEC_REQ, encode(request))) as link:
        info = decode(SessionInfo, link.expect(FrameType.SESSION_INFO))
        size = 0
        while size < 2 * SCROLLBACK_BYTES:
            size += len(link.expect(FrameType.STDOUT))
    return info.session_id


def measure_start(effort: Effort) -> Measurement:
    """Start an agent until it says that it listens; ending it is not timed."""

    def start() -> float:
        started = time.perf_counter()
        with processes.agent():
            return time.perf_counter() - started

    ours, theirs = alternate(start, timed(processes.python_start), effort.samples(30, 5))
    return Measurement(measured=ours, reference=theirs)


def measure_memory(effort: Effort) -> Measurement:
    """Look at the resident memory of an agent that has run a command, and of a Python that does nothing."""

    def idle_agent() -> float:
        with processes.agent() as agent:
            exec_true(agent.control)()
            return processes.resident_mib(agent.pid)

    def idle_python() -> float:
        with processes.idle_python() as pid:
            return processes.resident_mib(pid)

    ours, theirs = alternate(idle_agent, idle_python, effort.samples(10, 3))
    return Measurement(measured=ours, reference=theirs, in_mib=True)


def write_and_rename(path: Path, data: bytes) -> None:
    """Replace a file atomically and durably, with nothing around the five calls that takes."""
    temporary = path.with_name(uuid.uuid4().hex)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    os.write(descriptor, data)
    os.fsync(descriptor)
    os.close(descriptor)
    temporary.rename(path)


def measure_stdout(effort: Effort) -> Measurement:
    """``cat`` a file on tmpfs through the agent and through a socketpair."""
    size = bulk_size(effort)
    with processes.agent() as agent, processes.scratch(in_memory=True) as directory:
        path = _file_of(directory, size)
        request = exec_request("/bin/cat", str(path))

        def through_agent() -> None:
            with Link(agent.control, request) as link:
                _check_size(sum(map(len, link.until_exit())), size)

        ours, theirs = alternate(timed(through_agent), timed(lambda: bare_cat(path, size)), effort.samples(20, 3))
    return Measurement(measured=ours, reference=theirs, megabytes=size / MEGABYTE)


def measure_forward(effort: Effort) -> Measurement:
    """Receive from a server through a forwarded port, and from ``cat`` through a socketpair."""
    size = bulk_size(effort)
    with (
        processes.agent() as agent,
        processes.tcp_peer(size) as port,
        processes.scratch(in_memory=True) as directory,
    ):
        path = _file_of(directory, size)
        request = frames.encode(FrameType.FWD_REQ, encode(ForwardRequest(port=port)))

        def through_agent() -> None:
            with Link(agent.forward, request) as link:
                link.expect(FrameType.FWD_RESP)
                _check_size(link.count_raw(), size)

        ours, theirs = alternate(timed(through_agent), timed(lambda: bare_cat(path, size)), effort.samples(20, 3))
    return Measurement(measured=ours, reference=theirs, megabytes=size / MEGABYTE)


def bare_cat(path: Path, size: int) -> None:
    """Run ``cat`` with a socketpair as its output, and read that to its end."""
    here, there = socket.socketpair()
    with there:
        actions = [(os.POSIX_SPAWN_DUP2, there.fileno(), 1)]
        pid = os.posix_spawn("/bin/cat", ("/bin/cat", str(path)), {}, file_actions=actions)
    total = 0
    try:
        with here:
            buffer = bytearray(RECEIVE_BYTES)
            while received := here.recv_into(buffer):
                total += received
    finally:
        os.waitpid(pid, 0)
    _check_size(total, size)


def bulk_size(effort: Effort) -> int:
    """How many bytes a sample of a rate moves: enough that starting a program does not show."""
    return (32 if effort.quick else 256) * MEGABYTE


def _file_of(directory: Path, size: int) -> Path:
    path = directory / "bulk"
    with path.open("wb") as file:
        for _ in range(size // MEGABYTE):
            file.write(bytes(MEGABYTE))
    return path


def _check_size(found: int, expected: int) -> None:
    if found != expected:
        raise SampleFailed(f"{found} bytes came through, not {expected}")


ROWS = (
    Row(
        name="agent.exec",
        what=f"exec {TRUE} in test mode over a Unix socket",
        reference="posix_spawn and waitid of the same program",
        goals=at_most(ratio=1.3, ratio_p99=2),
        measure=measure_exec,
    ),
    Row(
        name="agent.read_1k",
        what="read a file of 1 KiB on tmpfs",
        reference="open, read, close",
        goals=at_most(p50_ms=0.15),
        measure=measure_read,
    ),
    Row(
        name="agent.write_1k",
        what="replace a file of 1 KiB on tmpfs",
        reference="open, write, fsync, close, rename",
        goals=at_most(p50_ms=0.4),
        measure=measure_write,
    ),
    Row(
        name="agent.stdout",
        what="output of cat through the framing",
        reference="cat through a socketpair",
        goals=at_least(mb_per_s=500),
        measure=measure_stdout,
    ),
    Row(
        name="agent.forward",
        what="bytes from a TCP server through a forwarded port",
        reference="cat through a socketpair",
        goals=at_least(mb_per_s=500),
        measure=measure_forward,
    ),
    Row(
        name="agent.attach",
        what="attach to a session with 64 KiB of scrollback, to its last byte",
        reference="64 KiB from a bare TCP server",
        goals=at_most(p50_ms=1),
        measure=measure_attach,
    ),
    Row(
        name="agent.start",
        what="start of the agent until it listens",
        reference="python -c pass",
        goals=at_most(p50_ms=150),
        measure=measure_start,
    ),
    Row(
        name="agent.memory",
        what="resident memory of an idle agent",
        reference="a Python that waits",
        goals=at_most(mib=20),
        measure=measure_memory,
    ),
)
