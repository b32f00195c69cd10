"""From moments on the monotonic clock to the timeout of ``poll``."""

from __future__ import annotations

_LONGEST_MS = 3_600_000.0


def poll_timeout_ms(now: float, *moments: float | None) -> float | None:
    """Give the time from ``now`` to the earliest moment, 0 when it has come, None when there is none.

    At most an hour, as ``poll`` takes 31 bits of milliseconds and the moments come from clients; whoever is woken looks
    at the clock anyway. One millisecond is added, for ``poll`` rounds and waking early would be waking twice.
    """
    due = [moment for moment in moments if moment is not None]
    if not due:
        return None
    return min(max(0.0, (min(due) - now) * 1000 + 1), _LONGEST_MS)
