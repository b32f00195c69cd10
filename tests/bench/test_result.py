"""Goals and verdicts by table."""

from __future__ import annotations

import pytest
from tests.bench.cases import met, missed, row, series

from hearth.bench.as_table import reached
from hearth.bench.result import Verdict, judge, value_of
from hearth.bench.row import Goal, Measurement, Quantity, at_least, at_most
from hearth.bench.samples import Series
from hearth.model import Accelerator

OURS = series(*([10.0] * 98), 30.0, 30.0)
THEIRS = series(*([8.0] * 98), 10.0, 10.0)


@pytest.mark.parametrize(
    ("quantity", "value"),
    [
        (Quantity.P50, 10.0),
        (Quantity.P99, 30.0),
        (Quantity.RATIO, 1.25),
        (Quantity.RATIO_P99, 3.0),
        (Quantity.ADDED, 2.0),
        (Quantity.RATE, 1000.0),
    ],
)
def test_each_quantity_is_taken_from_the_right_percentiles(quantity: Quantity, value: float) -> None:
    measurement = Measurement(measured=OURS, reference=THEIRS, megabytes=10)
    assert value_of(quantity, measurement) == pytest.approx(value)


@pytest.mark.parametrize(
    ("goals", "verdict"),
    [
        (at_most(ratio=1.25), Verdict.MET),
        (at_most(ratio=1.24), Verdict.MISSED),
        (at_most(ratio=1.3, ratio_p99=3.0), Verdict.MET),
        (at_most(ratio=1.3, ratio_p99=2.9), Verdict.MISSED),
        (at_most(p50_ms=10), Verdict.MET),
        (at_most(p50_ms=9.9), Verdict.MISSED),
        (at_most(p99_ms=29), Verdict.MISSED),
        (at_most(added_ms=2.1), Verdict.MET),
        (at_most(added_ms=1.9), Verdict.MISSED),
        (at_least(mb_per_s=999), Verdict.MET),
        (at_least(mb_per_s=1001), Verdict.MISSED),
        ((), Verdict.MET),
    ],
)
def test_a_row_meets_its_goals_when_it_meets_all_of_them(goals: tuple[Goal, ...], verdict: Verdict) -> None:
    measurement = Measurement(measured=Series(durations_s=tuple(OURS.durations_s)), reference=THEIRS, megabytes=10)
    assert judge(row(goals=goals), measurement).verdict is verdict


def test_a_row_with_a_failed_sample_has_missed_however_fast_it_was() -> None:
    measurement = Measurement(measured=series(1.0, failures=("lost",)), reference=series(1.0))
    result = judge(row(goals=at_most(ratio=5)), measurement)
    assert result.verdict is Verdict.MISSED
    assert result.reason == "lost"
    assert result.figures is not None
    assert (result.figures.n, result.figures.failures) == (1, 1)


def test_a_row_without_any_sample_has_failed_and_says_why() -> None:
    result = judge(row(), Measurement(measured=series(failures=("lost",)), reference=series(1.0)))
    assert (result.verdict, result.reason, result.figures) == (Verdict.FAILED, "lost", None)


def test_durations_are_told_in_milliseconds() -> None:
    result = met()
    assert result.unit == "ms"
    assert result.figures is not None
    assert (result.figures.p50, result.figures.p99) == pytest.approx((2.0, 4.0))
    assert result.ratio == pytest.approx(2.0)


def test_memory_is_told_in_mebibytes_as_it_was_sampled() -> None:
    measurement = Measurement(
        measured=Series(durations_s=(14.0, 15.0)), reference=Series(durations_s=(7.0,)), in_mib=True
    )
    for limit, verdict in ((14.0, Verdict.MET), (13.9, Verdict.MISSED)):
        result = judge(row(goals=at_most(mib=limit)), measurement)
        assert (result.unit, result.verdict, result.ratio) == ("MiB", verdict, 2.0)
        assert result.figures is not None
        assert (result.figures.p50, result.figures.p99) == (14.0, 15.0)
        assert [reached(judged) for judged in result.judged] == ["14.0 MiB"]


def test_rates_are_told_in_megabytes_a_second_with_the_slow_end_as_p99() -> None:
    result = missed()
    assert result.unit == "MB/s"
    assert result.figures is not None
    assert (result.figures.p50, result.figures.p99) == pytest.approx((100.0, 50.0))


@pytest.mark.parametrize(
    ("accelerator", "verdict"),
    [(None, Verdict.MET), (Accelerator.TCG, Verdict.MET), (Accelerator.KVM, Verdict.MISSED)],
)
def test_goals_on_kvm_hold_only_where_the_machines_ran_on_it(accelerator: Accelerator | None, verdict: Verdict) -> None:
    measurement = Measurement(measured=OURS, reference=THEIRS, accelerator=accelerator)
    both = row(goals=at_most(p50_ms=4000), goals_on_kvm=at_most(p50_ms=5))
    assert judge(both, measurement).verdict is verdict


@pytest.mark.parametrize(
    ("goal", "value", "share"),
    [
        (Goal(quantity=Quantity.P50, limit=4), 2.0, 0.5),
        (Goal(quantity=Quantity.RATIO, limit=1.5), 3.0, 2.0),
        (Goal(quantity=Quantity.RATE, limit=500), 1000.0, 0.5),
        (Goal(quantity=Quantity.RATE, limit=500), 250.0, 2.0),
    ],
)
def test_the_share_of_a_goal_is_above_one_exactly_when_it_is_missed(goal: Goal, value: float, share: float) -> None:
    assert goal.share(value) == share
    assert goal.is_met(value) is (share <= 1)


def test_the_worst_goal_is_the_one_missed_most() -> None:
    result = judge(row(goals=at_most(ratio=2, ratio_p99=1, p50_ms=9)), Measurement(measured=OURS, reference=THEIRS))
    assert result.worst is not None
    assert result.worst.goal.quantity is Quantity.RATIO_P99
