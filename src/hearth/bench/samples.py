"""Timing: operations called in turn with their reference, failures counted, percentiles by nearest rank.

What is measured and what it is compared with alternate within one loop, and swap places each round, so that whatever
else the machine does hits both alike.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from hearth.errors import HearthError
from hearth.wire.frames import WireError

Operation = Callable[[], float]
"""Does one thing and tells how long that took, in seconds; what it does before and after may stay out."""

MAX_FAILURES = 10
"""A row is given up after so many failed samples: each may have waited for its timeout."""


class SampleFailed(Exception):
    """One try did not do what it should have; it is counted, and its time is not."""


FAILURES = (OSError, HearthError, WireError, SampleFailed)
"""What counts as a failed sample; anything else is a defect of the row and ends it."""


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How thorough a run is; ``quick`` wants seconds instead of minutes."""

    quick: bool = False

    def samples(self, full: int, quick: int, *, warm_up: int = 1) -> Count:
        """Give the number of samples for this effort, after ``warm_up`` that are thrown away."""
        return Count(samples=quick if self.quick else full, warm_up=warm_up)


@dataclass(frozen=True, kw_only=True)
class Count:
    """How often to measure, and how often before that without counting."""

    samples: int
    warm_up: int = 1


@dataclass(frozen=True, kw_only=True)
class Series:
    """The samples of one operation, in seconds, in the order they were taken, and why others failed."""

    durations_s: tuple[float, ...]
    failures: tuple[str, ...] = ()

    def percentile_s(self, percent: float) -> float:
        """Give a percentile in seconds; there must be a sample."""
        return percentile(self.durations_s, percent)


@dataclass
class _Recorder:
    operation: Operation
    durations_s: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def sample(self) -> None:
        try:
            self.durations_s.append(self.operation())
        except FAILURES as error:
            self.failures.append(f"{type(error).__name__}: {error}")

    def series(self) -> Series:
        return Series(durations_s=tuple(self.durations_s), failures=tuple(self.failures))


def alternate(measured: Operation, reference: Operation, count: Count) -> tuple[Series, Series]:
    """Measure both operations in turn. A failure during warm-up is raised, later ones are counted.

    Raises:
        OSError, HearthError, WireError, SampleFailed: already the warm-up failed.
    """
    for _ in range(count.warm_up):
        reference()
        measured()
    ours, theirs = _Recorder(measured), _Recorder(reference)
    pair = (theirs, ours)
    for _ in range(count.samples):
        for recorder in pair:
            recorder.sample()
        if len(ours.failures) + len(theirs.failures) >= MAX_FAILURES:
            break
        pair = (pair[1], pair[0])
    return ours.series(), theirs.series()


def repeat(operation: Operation, count: Count) -> Series:
    """Measure one operation alone; failures as in ``alternate``."""
    for _ in range(count.warm_up):
        operation()
    recorder = _Recorder(operation)
    for _ in range(count.samples):
        recorder.sample()
        if len(recorder.failures) >= MAX_FAILURES:
            break
    return recorder.series()


def timed(action: Callable[[], object]) -> Operation:
    """Make an operation of an action that is to be timed as a whole."""

    def operation() -> float:
        started_ns = time.perf_counter_ns()
        action()
        return (time.perf_counter_ns() - started_ns) / 1e9

    return operation


def percentile(values: Sequence[float], percent: float) -> float:
    """Give the smallest value that at least ``percent`` per cent of the values do not exceed (nearest rank).

    No interpolation: the answer is a sample that was taken. ``values`` may be in any order, but not empty.
    """
    rank = math.ceil(len(values) * percent / 100)
    return sorted(values)[max(rank, 1) - 1]
