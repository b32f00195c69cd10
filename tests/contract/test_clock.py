"""What every clock promises."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, timedelta

import pytest

from hearth.host.clock import Clock, ManualClock, SystemClock

Pass = Callable[[float], None]


@pytest.fixture(params=["system", "manual"])
def ticking(request: pytest.FixtureRequest) -> tuple[Clock, Pass]:
    """A clock, and what makes its time pass while somebody sleeps."""
    if request.param == "system":
        return SystemClock(), lambda _: None
    clock = ManualClock()
    return clock, clock.advance


async def test_now_is_aware_and_in_utc(ticking: tuple[Clock, Pass]) -> None:
    clock, _ = ticking
    assert clock.now().tzinfo is UTC


async def test_a_sleep_lasts_as_long_as_asked_on_both_faces(ticking: tuple[Clock, Pass]) -> None:
    clock, let_pass = ticking
    started, started_s = clock.now(), clock.monotonic()
    sleeping = asyncio.create_task(clock.sleep(0.02))
    await asyncio.sleep(0)
    let_pass(0.02)
    await sleeping
    assert clock.monotonic() - started_s >= 0.02
    # The system's wall clock may be stepped meanwhile; by less than this unless somebody sets it by hand.
    assert clock.now() - started >= timedelta(seconds=0.01)


@pytest.mark.parametrize("duration_s", [0, -1])
async def test_a_sleep_of_nothing_lets_others_run_and_returns(ticking: tuple[Clock, Pass], duration_s: float) -> None:
    clock, _ = ticking
    other = asyncio.create_task(asyncio.sleep(0))
    await clock.sleep(duration_s)
    await clock.sleep(duration_s)
    await clock.sleep(duration_s)
    assert other.done()


async def test_a_sleep_can_be_cancelled(ticking: tuple[Clock, Pass]) -> None:
    clock, _ = ticking
    sleeping = asyncio.create_task(clock.sleep(3600))
    await asyncio.sleep(0)
    sleeping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sleeping


async def test_the_manual_clock_stands_still_until_it_is_moved() -> None:
    clock = ManualClock()
    before = clock.now(), clock.monotonic()
    await asyncio.sleep(0.002)
    assert (clock.now(), clock.monotonic()) == before
    clock.advance(90)
    assert (clock.now() - before[0], clock.monotonic() - before[1]) == (timedelta(seconds=90), 90)


async def test_the_manual_clock_wakes_sleepers_in_the_order_of_their_time() -> None:
    clock = ManualClock()
    woken: list[float] = []

    async def sleep(duration_s: float) -> None:
        await clock.sleep(duration_s)
        woken.append(duration_s)

    sleeping = {duration_s: asyncio.create_task(sleep(duration_s)) for duration_s in (3, 1, 9, 2)}
    await clock.wait_for_sleepers(4)
    clock.advance(3)
    await asyncio.gather(sleeping[1], sleeping[2], sleeping[3])
    assert woken == [1, 2, 3]
    assert not sleeping[9].done()
    clock.advance(6)
    await sleeping[9]


def test_the_manual_clock_never_goes_back() -> None:
    with pytest.raises(ValueError, match="back"):
        ManualClock().advance(-1)
