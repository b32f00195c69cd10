"""Rows and measurements with known figures."""

from __future__ import annotations

from hearth.bench.result import Result, failed, judge, skipped
from hearth.bench.row import Goal, Measurement, Row, at_least, at_most
from hearth.bench.run import Run, new_run
from hearth.bench.samples import Effort, Series
from hearth.bench.yardsticks import Reading, Yardstick, read


def series(*milliseconds: float, failures: tuple[str, ...] = ()) -> Series:
    return Series(durations_s=tuple(value / 1000 for value in milliseconds), failures=failures)


def row(name: str = "case.row", goals: tuple[Goal, ...] = (), goals_on_kvm: tuple[Goal, ...] | None = None) -> Row:
    def measure(effort: Effort) -> Measurement:
        return Measurement(measured=series(2.0), reference=series(1.0))

    return Row(
        name=name,
        what=f"what {name} does",
        reference="by hand",
        goals=goals,
        measure=measure,
        goals_on_kvm=goals_on_kvm,
    )


def met() -> Result:
    return judge(row("case.met", at_most(ratio=3)), Measurement(measured=series(2, 2, 4), reference=series(1, 1, 1)))


def missed() -> Result:
    measurement = Measurement(
        measured=series(2000, 4000, failures=("SampleFailed: <no> & answer",)),
        reference=series(100, 100),
        megabytes=200,
        note="on a note",
    )
    return judge(row("case.missed", at_least(mb_per_s=500)), measurement)


def reading(*milliseconds: float, name: str = "stick") -> Reading:
    return read(Yardstick(name=name, what="a known time", measure=lambda _effort: series(*milliseconds)), Effort())


def a_run() -> Run:
    run = new_run(Effort(quick=True))
    run.readings += [reading(0.5, 0.5, 0.75)]
    run.results += [
        met(),
        missed(),
        skipped(row("case.skipped"), "no images here"),
        failed(row("case.failed"), "ValueError: broken"),
    ]
    return run
