"""What the kernel killed for want of memory, from its own log (/dev/kmsg, Documentation/ABI/testing/dev-kmsg)."""

from __future__ import annotations

import os
import threading
from collections import deque

from hearth.wire.messages import OomKill

MAX_KILLS = 16
MAX_RECORDS = 20_000
"""How many records one look takes in; a program that floods the log keeps nobody busy for longer."""
_RECORD_BYTES = 8192
"""The kernel gives no record that is longer (CONSOLE_EXT_LOG_MAX)."""
_KERNEL = 0
_LOST = "Killed process "
_CAUSES = ("Out of memory", "Memory cgroup out of memory")


class KernelLog:
    """Reads on where it stopped and keeps the last kills."""

    def __init__(self, descriptor: int) -> None:
        """``descriptor`` is of /dev/kmsg, open for reading without blocking, and this object's alone."""
        self._descriptor = descriptor
        self._lock = threading.Lock()
        self._kills: deque[OomKill] = deque(maxlen=MAX_KILLS)

    def oom_kills(self) -> list[OomKill]:
        """Give the last kills, oldest first."""
        with self._lock:
            for _ in range(MAX_RECORDS):
                try:
                    record = os.read(self._descriptor, _RECORD_BYTES)
                except BlockingIOError:
                    break
                except BrokenPipeError:  # overwritten before it was read; the next read goes on behind
                    continue
                if not record:
                    break
                kill = parse_kill(record)
                if kill is not None:
                    self._kills.append(kill)
            return list(self._kills)


def parse_kill(record: bytes) -> OomKill | None:
    """Read a record if it tells of a kill: ``priority,sequence,microseconds,flags;text``, and lines of properties.

    Programs may write to the log too, but never as the kernel: the facility tells who spoke. The text is that of
    ``__oom_kill_process`` in mm/oom_kill.c; the name in it is the program's own choice and may hold anything.
    """
    header, _, rest = record.partition(b";")
    fields = header.split(b",")
    text = rest.split(b"\n", 1)[0].decode("ascii", "backslashreplace")
    cause, found, told = text.partition(_LOST)
    number, _, named = told.partition(" (")
    name, closed, _ = named.rpartition(") total-vm:")
    if not (found and closed and cause.startswith(_CAUSES)):
        return None
    try:
        if int(fields[0]) >> 3 != _KERNEL:
            return None
        return OomKill(process=name, pid=int(number), seconds=int(fields[2]) / 1e6)
    except (ValueError, IndexError):
        return None
