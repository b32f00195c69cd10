"""Locks between processes: flock(2) on a file that stays. The kernel frees them however their holder dies."""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType

from hearth.errors import TimedOut

RETRY_S = 0.1
"""Pause between attempts. A blocking flock would hold a thread that no cancellation reaches."""


class FileLock:
    """A held exclusive lock, from ``try_lock`` or ``lock``."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor

    def release(self) -> None:
        """Free the lock; doing it twice is fine."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def discard(self) -> None:
        """Free the lock and delete its file, for locks on things that come and go. Only the holder may delete it, and
        who takes a lock checks that its file is still the one of that name.
        """
        if self._descriptor >= 0:
            self.path.unlink(missing_ok=True)
        self.release()

    def __enter__(self) -> FileLock:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def try_lock(path: Path) -> FileLock | None:
    """Take the lock now, or None when somebody else (or this process by another call) holds it."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if is_named(descriptor, path):
                return FileLock(path, descriptor)
        except BlockingIOError:
            os.close(descriptor)
            return None
        except OSError:
            os.close(descriptor)
            raise
        # The holder deleted the file between our open and our flock: what we locked is nobody's lock any more.
        os.close(descriptor)


def is_named(descriptor: int, path: Path) -> bool:
    """Tell whether ``path`` is still the name of the open file."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


@asynccontextmanager
async def lock(path: Path, *, timeout_s: float, on_wait: Callable[[], None] | None = None) -> AsyncIterator[FileLock]:
    """Hold the lock inside the ``async with``; ``on_wait`` is called once when it must be waited for.

    Raises:
        TimedOut: somebody held it for longer than ``timeout_s`` seconds.
    """
    held = try_lock(path)
    if held is None and on_wait is not None:
        on_wait()
    deadline_s = asyncio.get_running_loop().time() + timeout_s
    while held is None:
        if asyncio.get_running_loop().time() >= deadline_s:
            raise TimedOut("waited too long for another process", details=f"{path} has been locked for {timeout_s:g} s")
        await asyncio.sleep(RETRY_S)
        held = try_lock(path)
    with held:
        yield held
