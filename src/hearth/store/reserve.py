"""Room kept for the database on its disk: what a full disk needs first is a row that says what is to go."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

RESERVE_BYTES = 1024 * 1024
AGAIN_AFTER_S = 60.0
"""Between two tries to have it back."""


class Reserve:
    """A file of no use but its size. Used by one thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._is_held = False
        self._tried_s: float | None = None

    def take(self) -> None:
        """Have it, unless there is no room for it now or was none a moment ago."""
        if self._is_held or (self._tried_s is not None and time.monotonic() - self._tried_s < AGAIN_AFTER_S):
            return
        self._tried_s = time.monotonic()
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                os.posix_fallocate(descriptor, 0, RESERVE_BYTES)
                self._is_held = True
            finally:
                os.close(descriptor)
        except OSError:
            self.give()

    def give(self) -> bool:
        """Let go of it; tells whether that made room."""
        was_held, self._is_held = self._is_held, False
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)
        return was_held
