"""How fast a job's bytes come, and how long the rest may take."""

from __future__ import annotations

import pytest

from hearth.control.events import Events
from hearth.control.reporting import Progressed, Reporter
from hearth.host.clock import ManualClock

MIB = 1 << 20


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def reporter(clock: ManualClock) -> Reporter:
    return Reporter(Events(clock, run="here"), clock.monotonic)


def at(reporter: Reporter, done: int, total: int = 1000 * MIB, stage: str = "downloading") -> Progressed:
    reporter.work("job-1", stage, 0.0, done, total)
    found = reporter.progress("job-1")
    assert found is not None
    return found


def test_a_rate_is_known_after_a_moment(reporter: Reporter, clock: ManualClock) -> None:
    assert (at(reporter, 0).rate_bps, at(reporter, 0).eta_s) == (None, None)
    clock.advance(1)
    found = at(reporter, 10 * MIB)
    assert (found.rate_bps, found.eta_s) == (10 * MIB, 99.0)


def test_what_was_there_from_an_earlier_try_makes_no_lasting_rate(reporter: Reporter, clock: ManualClock) -> None:
    at(reporter, 0)
    at(reporter, 900 * MIB)
    for second in range(1, 21):
        clock.advance(1)
        found = at(reporter, (900 + second) * MIB)
    assert found.rate_bps == pytest.approx(MIB)
    assert found.eta_s == pytest.approx(80.0)


def test_a_rate_follows_a_network_that_becomes_slow(reporter: Reporter, clock: ManualClock) -> None:
    at(reporter, 0)
    for second in range(1, 11):
        clock.advance(1)
        at(reporter, 50 * second * MIB)
    for second in range(1, 12):
        clock.advance(1)
        found = at(reporter, (500 + second) * MIB)
    assert found.rate_bps == pytest.approx(MIB)


def test_a_stage_begins_anew_and_so_does_one_that_falls_back(reporter: Reporter, clock: ManualClock) -> None:
    at(reporter, 0)
    clock.advance(1)
    assert at(reporter, 10 * MIB).rate_bps is not None
    assert at(reporter, 5 * MIB, stage="populating").rate_bps is None
    clock.advance(1)
    assert at(reporter, 0, stage="populating").rate_bps is None
    clock.advance(1)
    assert at(reporter, MIB, stage="populating").rate_bps == MIB
