"""From samples to figures and verdicts: pure functions over values."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from hearth.bench.row import Goal, Measurement, Quantity, Row
from hearth.bench.samples import Series

MS_PER_S = 1000.0


class Verdict(StrEnum):
    """How a row came out. A row with failed samples has missed its goal, however fast the others were."""

    MET = "met"
    MISSED = "missed"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, kw_only=True)
class Figures:
    """One series in numbers: ms, MB/s for rows that move bytes, or MiB. p99 is the bad end in all."""

    n: int
    failures: int
    p50: float
    p95: float
    p99: float


@dataclass(frozen=True, kw_only=True)
class Judged:
    """One goal, what was reached, and whether that is enough; ``share`` of 1.0 is just met."""

    goal: Goal
    value: float
    met: bool
    share: float


@dataclass(frozen=True, kw_only=True)
class Result:
    """What is known of a row after its turn; figures are None when there are none, ``reason`` then says why."""

    row: Row
    verdict: Verdict
    unit: str = "ms"
    figures: Figures | None = None
    reference: Figures | None = None
    ratio: float | None = None
    judged: tuple[Judged, ...] = ()
    reason: str = ""
    note: str = ""

    @property
    def worst(self) -> Judged | None:
        """The goal that is missed most, or met most narrowly."""
        return max(self.judged, key=lambda each: each.share, default=None)


def skipped(row: Row, reason: str) -> Result:
    return Result(row=row, verdict=Verdict.SKIPPED, reason=reason)


def failed(row: Row, reason: str) -> Result:
    return Result(row=row, verdict=Verdict.FAILED, reason=reason)


def judge(row: Row, measurement: Measurement) -> Result:
    """Give figures, ratio and verdict of a measurement."""
    ours, theirs = measurement.measured, measurement.reference
    if not ours.durations_s or not theirs.durations_s:
        return failed(row, next(iter(ours.failures + theirs.failures), "no sample was taken"))
    judged = tuple(_judge(goal, measurement) for goal in row.goals_for(measurement))
    is_met = all(each.met for each in judged) and not ours.failures
    return Result(
        row=row,
        verdict=Verdict.MET if is_met else Verdict.MISSED,
        unit=measurement.unit,
        figures=figures(ours, measurement.megabytes, in_mib=measurement.in_mib),
        reference=figures(theirs, measurement.megabytes, in_mib=measurement.in_mib),
        ratio=value_of(Quantity.RATIO, measurement),
        judged=judged,
        reason=ours.failures[0] if ours.failures else "",
        note=measurement.note,
    )


def figures(series: Series, megabytes: float | None = None, *, in_mib: bool = False) -> Figures:
    """Give a series' percentiles in ms, in MB/s when each sample moved so many megabytes, or as they are, in MiB."""

    def figure(percent: float) -> float:
        duration_s = series.percentile_s(percent)
        if in_mib:
            return duration_s
        return duration_s * MS_PER_S if megabytes is None else megabytes / duration_s

    return Figures(
        n=len(series.durations_s), failures=len(series.failures), p50=figure(50), p95=figure(95), p99=figure(99)
    )


def value_of(quantity: Quantity, measurement: Measurement) -> float:
    """Give the number that goals of this kind are held against; ratios are of times, so above 1 is slower."""
    ours, theirs = measurement.measured, measurement.reference
    match quantity:
        case Quantity.P50:
            return ours.percentile_s(50) * MS_PER_S
        case Quantity.P99:
            return ours.percentile_s(99) * MS_PER_S
        case Quantity.RATIO:
            return ours.percentile_s(50) / theirs.percentile_s(50)
        case Quantity.RATIO_P99:
            return ours.percentile_s(99) / theirs.percentile_s(99)
        case Quantity.ADDED:
            return (ours.percentile_s(50) - theirs.percentile_s(50)) * MS_PER_S
        case Quantity.RATE:
            return (measurement.megabytes or 0.0) / ours.percentile_s(50)
        case Quantity.MEMORY:
            return ours.percentile_s(50)


def _judge(goal: Goal, measurement: Measurement) -> Judged:
    value = value_of(goal.quantity, measurement)
    return Judged(goal=goal, value=value, met=goal.is_met(value), share=goal.share(value))
