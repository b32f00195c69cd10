"""Tells a machine that slept what time it is, along with the first thing that is asked of it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from hearth.host.clock import Clock
from hearth.wire import frames

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Timekeeper:
    """Knows whether a machine still has to be told the time.

    Args:
        clock: the wall clock that is told.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._sleeps = 0
        self._told = 0

    def woken(self) -> None:
        """Note that the machine's clock has stood still until now."""
        self._sleeps += 1

    def frame(self) -> tuple[bytes, Callable[[], None] | None]:
        """Give what a connection sends between AUTH and its request, and what to call once it has been answered.

        Nothing and None for a machine that knows the time. Until an answer came every connection tells it, as one may
        be lost.
        """
        if self._told == self._sleeps:
            return b"", None
        sleeps = self._sleeps
        now_ns = (self._clock.now() - _EPOCH) // timedelta(microseconds=1) * 1000
        return frames.encode_time_sync(now_ns), lambda: self._heard(sleeps)

    def _heard(self, sleeps: int) -> None:
        self._told = max(self._told, sleeps)
