"""Percentiles by table, turns taken alternately, failures counted."""

from __future__ import annotations

import pytest

from hearth.bench.samples import MAX_FAILURES, Count, Effort, SampleFailed, alternate, percentile, repeat, timed

HUNDRED = [float(value) for value in range(100, 0, -1)]


@pytest.mark.parametrize(
    ("values", "percent", "expected"),
    [
        ([7.0], 50, 7.0),
        ([7.0], 99, 7.0),
        ([1.0, 2.0], 50, 1.0),
        ([3.0, 1.0, 2.0], 50, 2.0),
        ([4.0, 1.0, 3.0, 2.0], 50, 2.0),
        ([4.0, 1.0, 3.0, 2.0], 75, 3.0),
        ([4.0, 1.0, 3.0, 2.0], 76, 4.0),
        (HUNDRED, 0, 1.0),
        (HUNDRED, 50, 50.0),
        (HUNDRED, 95, 95.0),
        (HUNDRED, 99, 99.0),
        (HUNDRED, 100, 100.0),
        ([0.0] * 99 + [9.0], 99, 0.0),
        ([0.0] * 98 + [9.0] * 2, 99, 9.0),
    ],
)
def test_a_percentile_is_the_sample_of_the_nearest_rank(values: list[float], percent: float, expected: float) -> None:
    assert percentile(values, percent) == expected


def test_both_operations_take_turns_and_swap_places_each_round() -> None:
    order: list[str] = []

    def ours() -> float:
        order.append("o")
        return 2.0

    def theirs() -> float:
        order.append("t")
        return 1.0

    measured, reference = alternate(ours, theirs, Count(samples=4, warm_up=1))
    assert "".join(order) == "to" + "to" + "ot" + "to" + "ot"
    assert measured.durations_s == (2.0,) * 4
    assert reference.durations_s == (1.0,) * 4


def test_warm_up_samples_are_thrown_away() -> None:
    durations = iter([50.0, 40.0, 1.0, 2.0])
    series = repeat(lambda: next(durations), Count(samples=2, warm_up=2))
    assert series.durations_s == (1.0, 2.0)


def test_a_failed_sample_is_counted_and_its_time_is_not() -> None:
    turns = iter([1.0, None, 3.0])

    def operation() -> float:
        duration = next(turns)
        if duration is None:
            raise SampleFailed("no answer")
        return duration

    series = repeat(operation, Count(samples=3, warm_up=0))
    assert series.durations_s == (1.0, 3.0)
    assert series.failures == ("SampleFailed: no answer",)


def test_an_operation_that_only_fails_is_given_up() -> None:
    def refuse() -> float:
        raise ConnectionRefusedError("nobody listens")

    ours, theirs = alternate(refuse, lambda: 1.0, Count(samples=1000, warm_up=0))
    assert len(ours.failures) == MAX_FAILURES
    assert len(theirs.durations_s) <= MAX_FAILURES


def test_a_failure_while_warming_up_is_raised() -> None:
    def refuse() -> float:
        raise SampleFailed("no answer")

    with pytest.raises(SampleFailed):
        repeat(refuse, Count(samples=1, warm_up=1))


def test_a_defect_of_a_row_is_not_mistaken_for_a_failed_sample() -> None:
    def defect() -> float:
        raise KeyError("defect")

    with pytest.raises(KeyError):
        repeat(defect, Count(samples=1, warm_up=0))


def test_an_action_is_timed_in_seconds() -> None:
    duration_s = timed(lambda: sum(range(1000)))()
    assert 0 < duration_s < 1


def test_a_quick_run_takes_fewer_samples() -> None:
    assert Effort(quick=True).samples(100, 5, warm_up=2) == Count(samples=5, warm_up=2)
    assert Effort().samples(100, 5, warm_up=2) == Count(samples=100, warm_up=2)
