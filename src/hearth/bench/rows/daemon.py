"""``daemon.*``: the daemon as a process."""

from __future__ import annotations

import time

from hearth.bench.daemon import data_directory, serving
from hearth.bench.processes import python_start
from hearth.bench.row import Measurement, Row, at_most
from hearth.bench.samples import Effort, alternate, timed


def measure_start(effort: Effort) -> Measurement:
    """Start the daemon on a data directory that has been used before, until it answers a health request."""
    with data_directory() as data:

        def start() -> float:
            started = time.perf_counter()
            with serving(data, "local"):
                return time.perf_counter() - started

        ours, theirs = alternate(start, timed(python_start), effort.samples(20, 3))
    return Measurement(measured=ours, reference=theirs)


def measure_first_start(effort: Effort) -> Measurement:
    """Start the daemon on an empty data directory: it makes its database, its secret and its first key."""

    def start() -> float:
        with data_directory() as data:
            started = time.perf_counter()
            with serving(data, "local"):
                return time.perf_counter() - started

    ours, theirs = alternate(start, timed(python_start), effort.samples(10, 2))
    return Measurement(measured=ours, reference=theirs)


ROWS = (
    Row(
        name="daemon.start",
        what="start of the daemon to its first answer",
        reference="python -c pass",
        goals=at_most(p50_ms=1000),
        measure=measure_start,
    ),
    Row(
        name="daemon.first_start",
        what="the same on an empty data directory",
        reference="python -c pass",
        goals=at_most(p50_ms=1000),
        measure=measure_first_start,
    ),
)
