"""One run: the yardsticks, then row after row; what was measured before an interruption is kept."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from hearth.bench.result import Result, Verdict, failed, judge, skipped
from hearth.bench.row import Row, Skipped
from hearth.bench.samples import Effort
from hearth.bench.yardsticks import YARDSTICKS, Reading, Yardstick, read
from hearth.host.clock import SystemClock
from hearth.version import VERSION

Announce = Callable[[str], None]
"""Told what is being measured now."""


@dataclass(frozen=True, kw_only=True)
class Host:
    """What the figures were taken on."""

    cpus: int
    cpu: str
    kernel: str
    python: str
    load_1min: float


@dataclass(kw_only=True)
class Run:
    """A run as far as it has come."""

    effort: Effort
    host: Host
    started_at: datetime
    version: str = VERSION
    readings: list[Reading] = field(default_factory=list)
    results: list[Result] = field(default_factory=list)

    def count(self, verdict: Verdict) -> int:
        return sum(result.verdict is verdict for result in self.results)


def new_run(effort: Effort) -> Run:
    """Begin a run on this host."""
    return Run(effort=effort, host=look_at_host(), started_at=SystemClock().now())


def measure_all(
    run: Run, rows: Sequence[Row], announce: Announce, yardsticks: Sequence[Yardstick] = YARDSTICKS
) -> None:
    """Take the yardsticks and measure the rows, adding to ``run`` as they come."""
    for yardstick in yardsticks:
        announce(f"yardstick {yardstick.name}: {yardstick.what}")
        run.readings.append(read(yardstick, run.effort))
    for number, row in enumerate(rows, start=1):
        announce(f"{number}/{len(rows)} {row.name}: {row.what}")
        run.results.append(measure(row, run.effort))


def measure(row: Row, effort: Effort) -> Result:
    """Measure one row; whatever goes wrong in it becomes its result."""
    try:
        return judge(row, row.measure(effort))
    except Skipped as error:
        return skipped(row, str(error))
    except Exception as error:  # noqa: BLE001 -- a row ends here, the others are still to be measured
        return failed(row, f"{type(error).__name__}: {error}")


def look_at_host() -> Host:
    """Describe this host."""
    return Host(
        cpus=len(os.sched_getaffinity(0)),
        cpu=_cpu_model(),
        kernel=platform.release(),
        python=platform.python_version(),
        load_1min=round(os.getloadavg()[0], 2),
    )


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    found = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(found, platform.machine())
