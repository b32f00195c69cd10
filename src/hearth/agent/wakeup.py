"""A flag that ``poll`` can wait for: an eventfd on Linux, a pipe elsewhere."""

from __future__ import annotations

import contextlib
import os


class Wakeup:
    """Set by any thread, waited for by one through ``fileno``."""

    def __init__(self) -> None:
        if hasattr(os, "eventfd"):
            self._read = self._write = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        else:
            self._read, self._write = os.pipe()
            os.set_blocking(self._read, False)
            os.set_blocking(self._write, False)

    def fileno(self) -> int:
        return self._read

    def set(self) -> None:
        """Make the descriptor readable; once is as good as often."""
        with contextlib.suppress(BlockingIOError):
            os.write(self._write, b"\1\0\0\0\0\0\0\0")

    def clear(self) -> None:
        """Make it unreadable again, before looking at what one was woken for."""
        with contextlib.suppress(BlockingIOError):
            os.read(self._read, 65_536)

    def close(self) -> None:
        """Release it; nobody may use it any more."""
        os.close(self._read)
        if self._write != self._read:
            os.close(self._write)
