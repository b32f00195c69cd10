"""What counts as use: a table of two looks."""

from __future__ import annotations

from typing import Any

import pytest

from hearth.control.activity import Signs, Use, look

BEFORE = Use(
    used_s=100, bytes_moved=1000, output_bytes=50, cpu_ms=10_000, cpu_at_s=190, guest_used_unix=5000, guest_asked_s=190
)
SAME: dict[str, Any] = {"bytes_moved": 1000, "output_bytes": 50}
NOW_S = 200.0


@pytest.mark.parametrize(
    ("signs", "idle_s"),
    [
        (Signs(**SAME), 100),
        (Signs(**SAME, operations=1), 0),
        (Signs(**SAME, attached=1), 0),
        (Signs(**SAME, detached_jobs=1), 0),
        (Signs(**SAME, last_operation_s=180), 20),
        (Signs(**SAME, last_operation_s=90), 100),
        (Signs(**SAME, last_operation_s=500), 0),
        (Signs(bytes_moved=1001, output_bytes=50), 0),
        (Signs(bytes_moved=1000, output_bytes=51), 0),
        (Signs(bytes_moved=0, output_bytes=0), 100),
        (Signs(**SAME, cpu_ms=10_499), 100),
        (Signs(**SAME, cpu_ms=10_500), 0),
        (Signs(**SAME, cpu_ms=3), 100),
        (Signs(**SAME, guest_idle_s=7), 7),
        (Signs(**SAME, guest_idle_s=1e9), 100),
        (Signs(**SAME, guest_idle_s=-1e9), 0),
        (Signs(**SAME, guest_idle_s=-1e9, guest_used_unix=5000), 100),
        (Signs(**SAME, guest_idle_s=0, guest_used_unix=5000), 100),
        (Signs(**SAME, guest_idle_s=7, guest_used_unix=5001), 7),
        (Signs(**SAME, guest_idle_s=3600, guest_used_unix=5001), 10),
        (Signs(**SAME, guest_idle_s=-3600, guest_used_unix=5001), 0),
        (Signs(**SAME, guest_idle_s=0, guest_used_unix=3), 0),
        (Signs(**SAME, silent=True), 0),
    ],
    ids=[
        "nothing moved",
        "an operation under way",
        "something attached",
        "a job without a client",
        "an operation that ended",
        "an operation known already",
        "an operation of the future",
        "bytes that flowed",
        "output",
        "counters that began anew",
        "the work of an idle guest",
        "work",
        "a guest that booted anew",
        "use the agent saw",
        "use the agent saw long ago",
        "an agent that lies",
        "use known already, the guest's clock ahead of the host's",
        "use known already",
        "use since it was asked",
        "use since it was asked, the host's clock set forward by an hour",
        "use since it was asked, the host's clock set back by an hour",
        "a guest that began anew",
        "a guest too busy to answer",
    ],
)
def test_a_second_look_tells_since_when_there_was_no_use(signs: Signs, idle_s: float) -> None:
    assert look(BEFORE, signs, NOW_S, busy_cpu_share=0.05).idle_s(NOW_S) == idle_s


@pytest.mark.parametrize(
    ("signs", "idle_s"),
    [
        (Signs(bytes_moved=7, cpu_ms=10**9), 0),
        (Signs(guest_idle_s=60), 60),
        (Signs(guest_idle_s=60, operations=1), 0),
        (Signs(last_operation_s=150), 50),
        (Signs(last_operation_s=150, silent=True), 0),
    ],
)
def test_at_the_first_look_it_counts_as_used_now_unless_something_tells_when_it_was(
    signs: Signs, idle_s: float
) -> None:
    assert look(None, signs, NOW_S, busy_cpu_share=0.05).idle_s(NOW_S) == idle_s


def test_a_guest_that_has_not_answered_for_long_is_taken_for_dead() -> None:
    silent = Signs(**SAME, silent=True)
    busy = look(BEFORE, silent, 240, busy_cpu_share=0.05)
    assert (busy.idle_s(240), busy.guest_asked_s) == (0, 190)
    dead = look(busy, silent, 260, busy_cpu_share=0.05)
    assert dead.idle_s(260) == 20


def test_work_is_measured_from_the_last_time_the_guest_was_asked() -> None:
    asleep = look(BEFORE, Signs(**SAME), 290, busy_cpu_share=0.05)
    assert (asleep.cpu_ms, asleep.cpu_at_s) == (10_000, 190)
    awake = look(asleep, Signs(**SAME, cpu_ms=12_000), 390, busy_cpu_share=0.05)
    assert awake.idle_s(390) == 290
    assert look(awake, Signs(**SAME, cpu_ms=12_250), 395, busy_cpu_share=0.05).idle_s(395) == 0


def test_two_looks_at_one_moment_find_no_work() -> None:
    first = look(None, Signs(cpu_ms=1, guest_idle_s=5), NOW_S, busy_cpu_share=0.05)
    assert look(first, Signs(cpu_ms=2, guest_idle_s=5), NOW_S, busy_cpu_share=0.05).idle_s(NOW_S) == 5
