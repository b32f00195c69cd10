"""A child's end as something ``poll`` can wait for: a pidfd on Linux, a thread that writes to a pipe elsewhere."""

from __future__ import annotations

import os
import threading

from hearth.agent.spawn import StartFailed, end_group
from hearth.wire.runtime_typing import Protocol


class ExitWatch(Protocol):
    """Readable once the child has ended; ``collect`` then gives its wait status and frees its number."""

    def fileno(self) -> int: ...

    def collect(self) -> int:
        """Wait for the child, reap it and release the watch. Call it exactly once."""
        ...


class PidfdWatch:
    """The kernel's own way (Linux 5.3, pidfd_open(2))."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._descriptor = os.pidfd_open(pid)

    def fileno(self) -> int:
        return self._descriptor

    def collect(self) -> int:
        os.close(self._descriptor)
        return os.waitpid(self._pid, 0)[1]


class ThreadWatch:
    """The way of systems without pidfds; it reaps early, so its process group may be signalled a moment too late."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._status = 0
        self._read, self._write = os.pipe()
        self._thread = threading.Thread(target=self._wait, name=f"wait-{pid}", daemon=True)
        self._thread.start()

    def fileno(self) -> int:
        return self._read

    def collect(self) -> int:
        self._thread.join()
        os.close(self._read)
        return self._status

    def _wait(self) -> None:
        self._status = os.waitpid(self._pid, 0)[1]
        os.close(self._write)


def watch_child(pid: int) -> ExitWatch:
    """Watch a child just started, a leader of its group; one that cannot be watched is ended.

    Raises:
        StartFailed: there are no descriptors left.
    """
    try:
        return PidfdWatch(pid) if hasattr(os, "pidfd_open") else ThreadWatch(pid)
    except OSError as error:
        end_group(pid)
        os.waitpid(pid, 0)
        raise StartFailed("watching it", error.strerror or "failed") from error
