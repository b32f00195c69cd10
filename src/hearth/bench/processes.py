"""Processes a row needs around it: an agent in test mode, a byte-pushing peer, small programs run to their end.

All are children of ours, in process groups of their own, so that a Ctrl-C at the terminal reaches us alone. They are
ended by their pid when the context is left, however that comes about.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import select
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from hearth.bench.row import Skipped
from hearth.bench.samples import SampleFailed

START_TIMEOUT_S = 20.0
END_TIMEOUT_S = 30.0
TMPFS = Path("/dev/shm")  # noqa: S108 - only ever the parent of a directory made by mkdtemp
DEVNULL_ALL: tuple[tuple[int, int, str, int, int], ...] = (
    (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
    (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
    (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
)


@dataclass(frozen=True, kw_only=True)
class RunningAgent:
    """A running agent: its process, and where it listens."""

    pid: int
    control: Path
    forward: Path


@contextlib.contextmanager
def scratch(*, in_memory: bool = False) -> Iterator[Path]:
    """Give a new directory that is removed at the end; on tmpfs where asked for.

    Raises:
        Skipped: there is no tmpfs to use.
    """
    if in_memory and not os.access(TMPFS, os.W_OK):
        raise Skipped(f"{TMPFS} is not there or not writable")
    above = TMPFS if in_memory else tempfile.gettempdir()
    path = Path(above, f"hearth-bench-{secrets.token_hex(8)}")
    try:  # from here on: an interruption may come at any moment
        path.mkdir(mode=0o700)
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def agent() -> Iterator[RunningAgent]:
    """Run ``python -m hearth.agent`` in test mode."""
    with scratch() as directory:
        control, forward = directory / "control", directory / "forward"
        argv = [
            *(sys.executable, "-m", "hearth.agent"),
            *("--listen", f"unix:{control}", "--forward", f"unix:{forward}"),
        ]
        with (
            subprocess.Popen(argv, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, process_group=0) as process,
            _ended(process),
        ):
            said = _first_line(process.stderr)
            if "listening" not in said:
                raise SampleFailed(f"the agent did not start: {said}")
            yield RunningAgent(pid=process.pid, control=control, forward=forward)


@contextlib.contextmanager
def tcp_peer(size: int) -> Iterator[int]:
    """Run a server on loopback that sends ``size`` bytes to whoever connects; gives its port."""
    argv = [sys.executable, "-m", "hearth.bench.peer", "push", str(size)]
    with (
        subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, process_group=0) as process,
        _ended(process),
    ):
        yield int(_first_line(process.stdout))


@contextlib.contextmanager
def http_peer() -> Iterator[int]:
    """Run an HTTP server on loopback whose ``/N`` has N bytes; gives its port."""
    argv = [sys.executable, "-m", "hearth.bench.http_peer"]
    with (
        subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, process_group=0) as process,
        _ended(process),
    ):
        yield int(_first_line(process.stdout))


def spawn_and_wait(
    argv: Sequence[str],
    environment: Mapping[str, str] | None = None,
    file_actions: Sequence[tuple[int, int, str, int, int]] = (),
) -> None:
    """Start a program by posix_spawn and wait for its end: as little as Python can put around a process.

    Raises:
        SampleFailed: it ended with another status than 0.
    """
    pid = os.posix_spawn(argv[0], tuple(argv), environment or {}, file_actions=file_actions)
    end = os.waitid(os.P_PID, pid, os.WEXITED)
    if end is None or end.si_code != os.CLD_EXITED or end.si_status != 0:
        raise SampleFailed(f"{argv[0]} ended with status {end.si_status if end else '?'}")


def find_program(name: str) -> str:
    """Give the path of a program, preferring the one beside this Python.

    Raises:
        Skipped: it is not installed.
    """
    beside = Path(sys.executable).with_name(name)
    path = str(beside) if os.access(beside, os.X_OK) else shutil.which(name)
    if path is None:
        raise Skipped(f"{name} is not installed")
    return path


@contextlib.contextmanager
def idle_python() -> Iterator[int]:
    """Run a Python that does nothing but wait; gives its pid."""
    argv = [sys.executable, "-c", "print(flush=True); input()"]
    with (
        subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, process_group=0) as process,
        _ended(process),
    ):
        _first_line(process.stdout)
        yield process.pid


def resident_mib(pid: int) -> float:
    """Give what a process holds of the memory, shared pages included (VmRSS of proc_pid_status(5)).

    Raises:
        SampleFailed: it has ended.
    """
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "VmRSS":
            return int(value.split()[0]) / 1024
    raise SampleFailed("the process has ended")


def python_start() -> None:
    """Start a Python that does nothing, and wait for its end."""
    spawn_and_wait([sys.executable, "-c", "pass"], dict(os.environ), DEVNULL_ALL)


@contextlib.contextmanager
def _ended(process: subprocess.Popen[bytes]) -> Iterator[None]:
    try:
        yield
    finally:
        end(process)


def end(process: subprocess.Popen[bytes]) -> None:
    """End a child: politely, and after a while not."""
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(END_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _first_line(stream: IO[bytes] | None) -> str:
    if stream is None:
        raise AssertionError("the stream is piped")
    readable, _, _ = select.select([stream], [], [], START_TIMEOUT_S)
    return stream.readline().decode("utf-8", "replace").strip() if readable else "it stayed silent"
