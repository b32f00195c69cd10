"""When a finished process's output is complete, although others may still hold the other end of its pipe."""

from __future__ import annotations

import fcntl
import termios
import time
from struct import unpack

GRACE_S = 0.1
"""How long the end waits for a pipe that something else than the command still holds open."""


class Drain:
    """What outputs still owe after the command's end.

    What they hold at that moment is the command's and is always delivered; what comes later is delivered for the
    grace. A pipe that everybody has closed ends sooner.
    """

    def __init__(self, outputs: list[int]) -> None:
        self._owed = {descriptor: held_bytes(descriptor) for descriptor in outputs}
        self._deadline = time.monotonic() + GRACE_S

    def took(self, descriptor: int, count: int) -> None:
        """Note bytes read from an output; a closed one owes nothing (``closed``)."""
        if descriptor in self._owed:
            self._owed[descriptor] = max(0, self._owed[descriptor] - count)

    def closed(self, descriptor: int) -> None:
        """Note the end of an output."""
        self._owed.pop(descriptor, None)

    @property
    def is_over(self) -> bool:
        """True when nothing more needs to be waited for."""
        return not self._owed or (time.monotonic() >= self._deadline and not any(self._owed.values()))

    def look_again_at(self, now: float) -> float | None:
        """Tell when to look again; None when only bytes that are owed are waited for, and those announce themselves."""
        if now < self._deadline:
            return self._deadline
        return None if any(self._owed.values()) else now


def held_bytes(descriptor: int) -> int:
    """Tell how much a pipe or terminal holds to be read (FIONREAD)."""
    count: int = unpack("i", fcntl.ioctl(descriptor, termios.FIONREAD, b"\0\0\0\0"))[0]
    return count
