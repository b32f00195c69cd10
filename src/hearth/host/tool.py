"""Tools that read what strangers wrote, run to their end in an enclosure: the descriptors they are handed, and nothing
else of this host; see ``enclosure``. They die with us, on cancellation and on timeout.
"""

from __future__ import annotations

import asyncio
import os
import select
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hearth.errors import TimedOut
from hearth.host import enclosure
from hearth.host.process import TAIL_BYTES
from hearth.host.spawn import Child, signal_name
from hearth.host.threads import on_own_thread
from hearth.host.waiting import until_done

GATE = 12
READ_BYTES = 65_536
DYING_WITH_US = ("setpriv", "--pdeathsig", "KILL", "--no-new-privs", "--")


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a tool may take at most: its address space, its processor time, the files it writes."""

    memory_bytes: int = 1 << 30
    cpu_s: int = 60
    file_bytes: int = 0


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a tool ended: its status (None when a signal ended it), in words, and the end of what it said."""

    status: int | None
    how: str
    output: bytes

    @property
    def said(self) -> str:
        """What it said, for people."""
        return self.output.decode("utf-8", "replace").strip()


async def run_enclosed(
    argv: Sequence[str],
    *,
    descriptors: Mapping[int, int],
    limits: Limits,
    timeout_s: float,
    on_output: Callable[[bytes], None] | None = None,
) -> Outcome:
    """Run a tool that finds its files as ``/proc/self/fd/<number>``.

    Args:
        argv: program and arguments.
        descriptors: its number (3 or more, but not 12 to 15) → ours.
        on_output: called on the event loop with what it says, as it says it; stdout and stderr together.

    Raises:
        HostUnfit: it is not installed, or this host permits no enclosures.
        TimedOut: it took too long.
    """
    loop = asyncio.get_running_loop()
    running = _Running(argv, descriptors, limits, timeout_s)

    def hand_over(data: bytes) -> None:
        if on_output is not None:
            loop.call_soon_threadsafe(on_output, data)

    # The thread lives as long as the tool: the death signal comes when the thread ends that started it (prctl(2)).
    work = asyncio.ensure_future(on_own_thread(argv[0], lambda: running.run(hand_over)))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        running.stop()
        await until_done(work)
        if not work.cancelled():
            work.exception()  # it was killed: what it says about that is of no interest
        raise


class _Running:
    def __init__(self, argv: Sequence[str], descriptors: Mapping[int, int], limits: Limits, timeout_s: float) -> None:
        self._argv, self._descriptors, self._limits, self._timeout_s = argv, descriptors, limits, timeout_s
        self._lock = threading.Lock()
        self._child: Child | None = None
        self._is_stopped = False

    def stop(self) -> None:
        """End it now, or as soon as it has begun."""
        with self._lock:
            self._is_stopped = True
            if self._child is not None:
                self._child.kill()

    def run(self, on_output: Callable[[bytes], None]) -> Outcome:
        reader, writer = os.pipe2(os.O_CLOEXEC)
        try:
            try:
                child = self._start(writer)
            finally:
                os.close(writer)
            try:
                tail = self._follow(reader, on_output)
            finally:
                status = self._bury(child)
        finally:
            os.close(reader)
        if status < 0:
            return Outcome(status=None, how=f"ended by {signal_name(-status)}", output=tail)
        return Outcome(status=status, how=f"ended with status {status}", output=tail)

    def _start(self, writer: int) -> Child:
        limits = {
            "RLIMIT_AS": self._limits.memory_bytes,
            "RLIMIT_CPU": self._limits.cpu_s,
            "RLIMIT_FSIZE": self._limits.file_bytes,
            "RLIMIT_NOFILE": 64,
            "RLIMIT_CORE": 0,
        }
        with tempfile.TemporaryDirectory(prefix="hearth-tool-") as directory:
            opened = enclosure.open_gate(Path(directory) / "gate")
        # Nobody asks at this gate, so that its name may go at once: who dies later leaves nothing of it.
        with opened as gate:
            enclosed = enclosure.Enclosed(argv=self._argv, limits=limits, gate=GATE, dies_with_us=True)
            child = enclosure.start(enclosed, descriptors={**self._descriptors, GATE: gate.fileno()}, output=writer)
        with self._lock:
            self._child = child
            if self._is_stopped:
                child.kill()
        return child

    def _follow(self, reader: int, on_output: Callable[[bytes], None]) -> bytes:
        """Read until it has ended, and keep only what comes last: how much it says is up to strangers."""
        tail, deadline_s = b"", time.monotonic() + self._timeout_s
        poll = select.poll()
        poll.register(reader, select.POLLIN)
        while poll.poll(max(0.0, deadline_s - time.monotonic()) * 1000):
            data = os.read(reader, READ_BYTES)
            if not data:
                return tail
            on_output(data)
            tail = (tail + data)[-TAIL_BYTES:]
        raise TimedOut(
            f"{self._argv[0]} took longer than {self._timeout_s:g} s", details=" ".join(self._argv)[:TAIL_BYTES]
        )

    def _bury(self, child: Child) -> int:
        """End and collect it; gives its status, or the signal below zero."""
        with self._lock:
            self._child = None
        if not _ended(child.pid):
            child.kill(signal.SIGKILL)
        end = os.waitid(os.P_PID, child.pid, os.WEXITED)
        child.close()
        if end is None:
            raise AssertionError("a child that was not collected can be")
        return end.si_status if end.si_code == os.CLD_EXITED else -end.si_status


def _ended(pid: int) -> bool:
    """Wait a moment for an end that its closed output announced."""
    deadline_s = time.monotonic() + 1.0
    while time.monotonic() < deadline_s:
        if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
            return True
        time.sleep(0.001)
    return False
