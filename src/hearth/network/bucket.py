"""A bound for how often something may happen; pure but for what it remembers."""

from __future__ import annotations


class Bucket:
    """So many a second, so many at once.

    Args:
        per_s: how fast it fills.
        burst: how much it holds; full at first.
    """

    def __init__(self, *, per_s: float, burst: float) -> None:
        self._per_s = per_s
        self._burst = burst
        self._level = burst
        self._filled_s: float | None = None

    def take(self, now_s: float) -> bool:
        """Take one; False when there is none left."""
        elapsed_s = 0.0 if self._filled_s is None else now_s - self._filled_s
        self._level = min(self._burst, self._level + elapsed_s * self._per_s)
        self._filled_s = now_s
        if self._level < 1:
            return False
        self._level -= 1
        return True
