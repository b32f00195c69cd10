"""What this machine can do without hearth, taken at the start of every run: figures without them mean little."""

from __future__ import annotations

import contextlib
import hashlib
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from hearth.bench.bare_boot import boot_to_init, qemu_version
from hearth.bench.link import RECEIVE_BYTES, TIMEOUT_S, Link
from hearth.bench.peer import HTTP_REPLY
from hearth.bench.processes import agent, end, python_start, scratch
from hearth.bench.result import Figures, figures
from hearth.bench.row import Skipped
from hearth.bench.rows.agent import MEGABYTE, bare_cat, bare_true, write_and_rename
from hearth.bench.samples import FAILURES, Count, Effort, Operation, SampleFailed, Series, repeat, timed
from hearth.model import Accelerator
from hearth.wire import frames
from hearth.wire.frames import FrameType

MEMORY_BYTES = 64 * MEGABYTE
HASH_BYTES = 16 * MEGABYTE
PAGE = bytes(4096)
WORD = bytes(64)
HTTP_REQUEST = b"GET / HTTP/1.1\r\nhost: hearth\r\n\r\n"


@dataclass(frozen=True, kw_only=True)
class Yardstick:
    """One of them; ``megabytes`` per sample make its times a rate. ``is_slow`` ones are left out of quick runs."""

    name: str
    what: str
    measure: Callable[[Effort], Series]
    megabytes: float | None = None
    is_slow: bool = False


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What a yardstick showed: figures in ``unit``, or the reason why there are none."""

    yardstick: Yardstick
    figures: Figures | None = None
    reason: str = ""

    @property
    def unit(self) -> str:
        return "ms" if self.yardstick.megabytes is None else "MB/s"


def read(yardstick: Yardstick, effort: Effort) -> Reading:
    """Take one yardstick; one that cannot be taken says why."""
    if yardstick.is_slow and effort.quick:
        return Reading(yardstick=yardstick, reason="left out of quick runs")
    try:
        series = yardstick.measure(effort)
    except Skipped as error:
        return Reading(yardstick=yardstick, reason=str(error))
    except (*FAILURES, subprocess.CalledProcessError) as error:
        return Reading(yardstick=yardstick, reason=f"failed: {error}")
    if not series.durations_s:
        return Reading(yardstick=yardstick, reason=f"failed: {series.failures[0]}")
    return Reading(yardstick=yardstick, figures=figures(series, yardstick.megabytes))


def _of(action: Callable[[], object], full: int, quick: int) -> Callable[[Effort], Series]:
    return lambda effort: repeat(timed(action), effort.samples(full, quick, warm_up=1))


def _agent_echo(effort: Effort) -> Series:
    request = frames.encode(FrameType.ACTIVITY_REQ)
    with agent() as sockets:

        def ask() -> None:
            with Link(sockets.control, request) as link:
                link.expect(FrameType.ACTIVITY_RESP)

        return repeat(timed(ask), effort.samples(1000, 100, warm_up=10))


def _memcpy(effort: Effort) -> Series:
    source, target = memoryview(bytearray(MEMORY_BYTES)), memoryview(bytearray(MEMORY_BYTES))

    def copy() -> None:
        target[:] = source

    return repeat(timed(copy), effort.samples(30, 5))


def _sha256(effort: Effort) -> Series:
    data = memoryview(bytearray(HASH_BYTES))
    return repeat(timed(lambda: hashlib.sha256(data).digest()), effort.samples(30, 3))


def _commit(effort: Effort) -> Series:
    with scratch() as directory:
        return repeat(timed(lambda: write_and_rename(directory / "page", PAGE)), effort.samples(200, 20, warm_up=2))


def _socket_bulk(effort: Effort) -> Series:
    with scratch(in_memory=True) as directory:
        path = directory / "bulk"
        path.write_bytes(bytes(MEMORY_BYTES))
        return repeat(timed(lambda: bare_cat(path, MEMORY_BYTES)), effort.samples(20, 3))


def _round_trips(mode: str, request: bytes, reply_size: int) -> Callable[[Effort], Series]:
    def measure(effort: Effort) -> Series:
        with _peer(mode) as connection:

            def ask() -> None:
                connection.sendall(request)
                missing = reply_size
                while missing > 0:
                    data = connection.recv(RECEIVE_BYTES)
                    if not data:
                        raise SampleFailed("the peer closed")
                    missing -= len(data)

            return repeat(timed(ask), effort.samples(2000, 200, warm_up=20))

    return measure


@contextlib.contextmanager
def _peer(mode: str) -> Iterator[socket.socket]:
    here, there = socket.socketpair()
    argv = [sys.executable, "-m", "hearth.bench.peer", mode]
    with here:
        here.settimeout(TIMEOUT_S)
        with there:
            process = subprocess.Popen(argv, stdin=there.fileno(), process_group=0)
        with process:
            try:
                yield here
            finally:
                end(process)


def _boot(effort: Effort) -> Series:
    operation: Operation = lambda: boot_to_init(Accelerator.TCG)  # noqa: E731 - an operation is a value
    return repeat(operation, Count(samples=1 if effort.quick else 3, warm_up=0))


YARDSTICKS = (
    Yardstick(name="spawn", what="posix_spawn and wait of /bin/true", measure=_of(bare_true, 500, 50)),
    Yardstick(name="python", what="python -c pass", measure=_of(python_start, 30, 5)),
    Yardstick(name="qemu", what="qemu-system-x86_64 --version", measure=_of(qemu_version, 20, 3)),
    Yardstick(name="agent echo", what="one question to an agent, with its connection", measure=_agent_echo),
    Yardstick(name="socket echo", what="64 bytes over a Unix socket and back", measure=_round_trips("echo", WORD, 64)),
    Yardstick(
        name="http reply",
        what="a bare HTTP reply over a Unix socket",
        measure=_round_trips("http", HTTP_REQUEST, len(HTTP_REPLY)),
    ),
    Yardstick(name="commit", what="write 4 KiB, fsync, rename, on disk", measure=_commit),
    Yardstick(name="memcpy", what="copy memory", measure=_memcpy, megabytes=MEMORY_BYTES / MEGABYTE),
    Yardstick(name="sha256", what="hash memory", measure=_sha256, megabytes=HASH_BYTES / MEGABYTE),
    Yardstick(
        name="socket bulk", what="cat through a socketpair", measure=_socket_bulk, megabytes=MEMORY_BYTES / MEGABYTE
    ),
    Yardstick(name="qemu boot", what="plain QEMU (TCG) to init's first line", measure=_boot, is_slow=True),
)
