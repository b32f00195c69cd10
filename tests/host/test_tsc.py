"""What the measurement of the host's counter makes of a processor that is not its alone."""

from __future__ import annotations

import itertools
import time

from hearth.host import tsc

INTERRUPTION_S = 0.005


def test_a_reading_that_was_interrupted_is_none_that_counts() -> None:
    turns = itertools.count()

    def read_counter() -> int:
        """Tell the time, every other time after or before having been kept off the processor."""
        turn = next(turns) % 4
        if turn == 1:
            time.sleep(INTERRUPTION_S)
        count = time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)
        if turn == 3:
            time.sleep(INTERRUPTION_S)
        return count

    moment_ns, count = tsc._read(read_counter)
    assert abs(moment_ns - count) < INTERRUPTION_S / 4 * 1e9
