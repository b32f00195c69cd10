"""A run: what goes wrong in one row is that row's result and nobody else's."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.bench.cases import reading, row

from hearth.bench.result import Verdict
from hearth.bench.row import Measurement, Row, Skipped
from hearth.bench.run import measure, measure_all, new_run
from hearth.bench.samples import Effort, SampleFailed
from hearth.bench.yardsticks import Yardstick, read


def raising(error: Exception) -> Row:
    def measure_it(effort: Effort) -> Measurement:
        raise error

    return replace(row("case.raising"), measure=measure_it)


@pytest.mark.parametrize(
    ("error", "verdict", "reason"),
    [
        (Skipped("needs root"), Verdict.SKIPPED, "needs root"),
        (SampleFailed("no answer"), Verdict.FAILED, "SampleFailed: no answer"),
        (KeyError("defect"), Verdict.FAILED, "KeyError: 'defect'"),
    ],
)
def test_what_goes_wrong_becomes_the_rows_result(error: Exception, verdict: Verdict, reason: str) -> None:
    result = measure(raising(error), Effort())
    assert (result.verdict, result.reason) == (verdict, reason)


def test_rows_after_a_broken_one_are_measured() -> None:
    run = new_run(Effort())
    said: list[str] = []
    measure_all(run, [raising(KeyError("defect")), row()], said.append, yardsticks=[])
    assert [result.verdict for result in run.results] == [Verdict.FAILED, Verdict.MET]
    assert said == ["1/2 case.raising: what case.raising does", "2/2 case.row: what case.row does"]


def test_an_interruption_passes_and_leaves_what_was_measured() -> None:
    def interrupt(effort: Effort) -> Measurement:
        raise KeyboardInterrupt

    run = new_run(Effort())
    with pytest.raises(KeyboardInterrupt):
        measure_all(run, [row(), replace(row(), measure=interrupt), row()], lambda _: None, yardsticks=[])
    assert len(run.results) == 1


def test_a_yardstick_gives_figures_or_a_reason() -> None:
    def refuse(effort: Effort) -> object:
        raise Skipped("not here")

    found = reading(1.0, 2.0, 3.0).figures
    assert found is not None
    assert found.p50 == pytest.approx(2.0)
    stick = Yardstick(name="none", what="nothing", measure=refuse)  # type: ignore[arg-type]
    assert (read(stick, Effort()).figures, read(stick, Effort()).reason) == (None, "not here")


def test_a_slow_yardstick_is_left_out_of_quick_runs() -> None:
    stick = replace(reading(1.0).yardstick, is_slow=True)
    assert read(stick, Effort(quick=True)).figures is None
    assert read(stick, Effort()).figures is not None
