"""How fast places in line become free, for those who are told to come again; how long an order may take."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections import deque
from collections.abc import Iterator

FIRST_JOB_S = 20.0
"""What a job is taken to last as long as none has ended here."""
RECENT_SHARE = 0.3
"""Of the last job in what jobs are taken to last."""
RETRY_AFTER_MAX_S = 60.0
SPEEDS_KEPT = 9
SPEED_MIN_BYTES = 1 << 20
"""Of less the start would be measured, not the speed."""


class Speeds:
    """How fast images came and volumes were written here, each the middle of the last few times."""

    def __init__(self) -> None:
        self._fetching: deque[float] = deque(maxlen=SPEEDS_KEPT)
        self._writing: deque[float] = deque(maxlen=SPEEDS_KEPT)

    def fetched(self, count: int, took_s: float) -> None:
        """Take the speed of a download of ``count`` bytes, with what looked at them."""
        _take(self._fetching, count, took_s)

    def written(self, count: int, took_s: float) -> None:
        """Take the speed of writing ``count`` bytes."""
        _take(self._writing, count, took_s)

    def estimate_s(self, to_fetch: int, to_write: int) -> float | None:
        """Tell how long that many bytes may take, in seconds; None where the like was not done yet."""
        took_s = 0.0
        for count, speeds in ((to_fetch, self._fetching), (to_write, self._writing)):
            if count > 0 and not speeds:
                return None
            took_s += count / statistics.median(speeds) if count > 0 else 0.0
        return took_s


def _take(speeds: deque[float], count: int, took_s: float) -> None:
    if count >= SPEED_MIN_BYTES and took_s > 0:
        speeds.append(count / took_s)


class Pace:
    """Watches jobs of which ``at_once`` are done at the same time."""

    def __init__(self, at_once: int) -> None:
        self._at_once = at_once
        self._job_s = FIRST_JOB_S

    @contextlib.contextmanager
    def job(self) -> Iterator[None]:
        """Take the time of one job."""
        began_s = time.monotonic()
        try:
            yield
        finally:
            self._job_s += RECENT_SHARE * (time.monotonic() - began_s - self._job_s)

    @property
    def retry_after_s(self) -> float:
        """When the next place may be expected, in seconds."""
        return min(self._job_s / self._at_once, RETRY_AFTER_MAX_S)
