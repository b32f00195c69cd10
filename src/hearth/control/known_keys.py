"""Who presented which API key a moment ago, so that a burst of requests asks the store once."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Generic, TypeVar

REMEMBERED_S = 1.0
"""So long a key that ended in another daemon on the same database may still open this one."""
MAX_KEYS = 1024

T = TypeVar("T")


class KnownKeys(Generic[T]):
    """Callers by the digest of their key, for a second each.

    Whoever changes users or keys calls ``forget`` when that is done. What was read before and comes late is not kept:
    ``keep`` takes the ``generation`` from before the reading.
    """

    def __init__(self, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._clock_s = clock_s
        self._known: dict[str, tuple[float, T]] = {}
        self.generation = 0

    def get(self, digest: str) -> T | None:
        """Give who presented this key less than a second ago, if nothing has changed since."""
        found = self._known.get(digest)
        return found[1] if found is not None and self._clock_s() < found[0] else None

    def keep(self, digest: str, caller: T, generation: int) -> None:
        """Remember what the store said, unless something has changed since it was asked."""
        if generation != self.generation:
            return
        if len(self._known) >= MAX_KEYS:
            self._known.clear()
        self._known[digest] = (self._clock_s() + REMEMBERED_S, caller)

    def forget(self) -> None:
        """Ask the store anew from now on."""
        self.generation += 1
        self._known.clear()
