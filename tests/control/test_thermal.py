"""The policy as tables, as properties, and through a year."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hearth.config import Settings
from hearth.control.thermal import (
    FIRST_RETRY_S,
    LAST_RETRY_OF_EXPIRY_S,
    LAST_RETRY_S,
    Action,
    Decision,
    Failures,
    HostState,
    Policy,
    Reason,
    Round,
    Skip,
    Subject,
    decide,
    policy_of,
    retry_in_s,
)
from hearth.host.pressure import PressureLevel
from hearth.model import Heat

HOT, WARM, COLD = Heat.HOT, Heat.WARM, Heat.COLD
PAUSE, PAGE_OUT, STOP, EXPIRE = Action.PAUSE, Action.PAGE_OUT, Action.STOP, Action.EXPIRE
IDLE, PRESSURE, TTL = Reason.IDLE, Reason.PRESSURE, Reason.TTL
SOME, HIGH = PressureLevel.SOME, PressureLevel.HIGH

POLICY = Policy(idle_pause_s=30, idle_stop_s=1800, min_free_mib=512)
ROOMY = HostState(pressure=PressureLevel.NONE, swap_free_mib=4096, disk_free_mib=100_000)
SWAPLESS = replace(ROOMY, swap_free_mib=0)
PRESSED = replace(ROOMY, pressure=SOME)
PRESSED_SWAPLESS = replace(SWAPLESS, pressure=SOME)
DESPERATE = replace(ROOMY, pressure=HIGH)
YEAR_S = 365 * 24 * 3600.0


def one(heat: Heat, idle_s: float, **facts: object) -> Subject:
    """A machine of 100 MiB."""
    return replace(Subject(id="sb-1", heat=heat, idle_s=idle_s, private_mib=100), **facts)  # type: ignore[arg-type]


def outcome(subject: Subject, host: HostState = ROOMY, *, stops_free: int = 2) -> object:
    """What is done with a machine that is alone: action and reason, or why nothing is."""
    found = decide([subject], host, POLICY, stops_free=stops_free)
    if found.decisions:
        return found.decisions[0].action, found.decisions[0].reason
    return found.skips["sb-1"]


FAILED_ONCE = Failures(count=1, ago_s=59)
FAILED_LONG_AGO = Failures(count=1, ago_s=60)
FAILED_THRICE = Failures(count=3, ago_s=LAST_RETRY_S - 1)


@pytest.mark.parametrize(
    ("subject", "host", "expected"),
    [
        # Time alone.
        (one(HOT, 0), ROOMY, Skip.IN_USE),
        (one(HOT, 29.9), ROOMY, Skip.IN_USE),
        (one(HOT, 30), ROOMY, (PAUSE, IDLE)),
        (one(HOT, 1799), ROOMY, (PAUSE, IDLE)),
        (one(HOT, 1800), ROOMY, (STOP, IDLE)),
        (one(WARM, 89), ROOMY, Skip.RESTING),
        (one(WARM, 90), ROOMY, (PAGE_OUT, IDLE)),
        (one(WARM, 90), SWAPLESS, Skip.NO_SWAP),
        (one(WARM, 90, private_mib=0), SWAPLESS, Skip.NO_SWAP),
        (one(WARM, 90), replace(ROOMY, swap_free_mib=99), Skip.NO_SWAP),
        (one(WARM, 90, paged_out=True), ROOMY, Skip.RESTING),
        (one(WARM, 1800, paged_out=True), ROOMY, (STOP, IDLE)),
        (one(WARM, 1800), ROOMY, (STOP, IDLE)),
        (one(COLD, YEAR_S), ROOMY, Skip.COLD),
        # A machine's own timers.
        (one(HOT, 30, idle_pause_s=31), ROOMY, Skip.IN_USE),
        (one(HOT, 0, idle_pause_s=0), ROOMY, (PAUSE, IDLE)),
        (one(HOT, 2, idle_stop_s=2), ROOMY, (STOP, IDLE)),
        (one(WARM, 1800, idle_stop_s=1801, paged_out=True), ROOMY, Skip.RESTING),
        # What keeps it as it is.
        (one(HOT, YEAR_S, attached=True), DESPERATE, Skip.ATTACHED),
        (one(HOT, YEAR_S, operating=True), DESPERATE, Skip.OPERATION),
        (one(HOT, YEAR_S, keep_hot=True), DESPERATE, Skip.KEEP_HOT),
        (one(HOT, YEAR_S, can_sleep=False), DESPERATE, Skip.CANNOT_SLEEP),
        (one(HOT, YEAR_S, busy=True), DESPERATE, Skip.BUSY),
        # The end of its time goes before everything but a change under way.
        (one(HOT, 0, ttl_left_s=0, attached=True, keep_hot=True), ROOMY, (EXPIRE, TTL)),
        (one(COLD, 0, ttl_left_s=-5), ROOMY, (EXPIRE, TTL)),
        (one(HOT, 0, ttl_left_s=-5, can_sleep=False), ROOMY, (EXPIRE, TTL)),
        (one(HOT, 0, ttl_left_s=0, busy=True), ROOMY, Skip.BUSY),
        (one(HOT, 0, ttl_left_s=0.1), ROOMY, Skip.IN_USE),
        # A host short of memory.
        (one(HOT, 4), DESPERATE, Skip.IN_USE),
        (one(HOT, 5), PRESSED, (PAUSE, PRESSURE)),
        (one(WARM, 5), PRESSED, (PAGE_OUT, PRESSURE)),
        (one(WARM, 5, paged_out=True), PRESSED, (STOP, PRESSURE)),
        (one(WARM, 5), PRESSED_SWAPLESS, (STOP, PRESSURE)),
        (one(WARM, 5, private_mib=5000), PRESSED, (STOP, PRESSURE)),
        (one(WARM, 5), DESPERATE, (STOP, PRESSURE)),
        (one(WARM, 90), DESPERATE, (STOP, PRESSURE)),
        (one(WARM, 1800), DESPERATE, (STOP, IDLE)),
        # A disk without room: at least it is paused, or paged out.
        (one(WARM, 1800, paged_out=True), replace(ROOMY, disk_free_mib=611), Skip.DISK_LOW),
        (one(WARM, 1800, paged_out=True), replace(ROOMY, disk_free_mib=612), (STOP, IDLE)),
        (one(HOT, 1800), replace(ROOMY, disk_free_mib=0), (PAUSE, IDLE)),
        (one(WARM, 1800), replace(ROOMY, disk_free_mib=0), (PAGE_OUT, IDLE)),
        # What failed is left for a while; the lighter thing is still done.
        (one(WARM, 1800, paged_out=True, failures={STOP: FAILED_ONCE}), ROOMY, Skip.BACKING_OFF),
        (one(WARM, 1800, paged_out=True, failures={STOP: FAILED_LONG_AGO}), ROOMY, (STOP, IDLE)),
        (one(WARM, 1800, paged_out=True, failures={STOP: FAILED_THRICE}), ROOMY, Skip.GAVE_UP),
        (one(WARM, 1800, failures={STOP: FAILED_THRICE}), ROOMY, (PAGE_OUT, IDLE)),
        (one(HOT, 1800, failures={STOP: FAILED_ONCE}), ROOMY, (PAUSE, IDLE)),
        (one(HOT, 30, failures={STOP: FAILED_ONCE}), ROOMY, (PAUSE, IDLE)),
        (one(HOT, 30, failures={PAUSE: FAILED_ONCE}), ROOMY, Skip.BACKING_OFF),
        (one(WARM, 5, failures={PAGE_OUT: FAILED_THRICE}), PRESSED, (STOP, PRESSURE)),
    ],
)
def test_what_is_done_with_one_machine(subject: Subject, host: HostState, expected: object) -> None:
    assert outcome(subject, host) == expected


def test_no_stop_begins_while_none_is_free_but_a_hot_one_is_paused() -> None:
    assert outcome(one(WARM, 1800, paged_out=True), stops_free=0) is Skip.ROUND_FULL
    assert outcome(one(HOT, 1800), stops_free=0) == (PAUSE, IDLE)


@pytest.mark.parametrize(
    ("action", "count", "pause_s"),
    [
        (STOP, 0, 0),
        (STOP, 1, FIRST_RETRY_S),
        (STOP, 2, 4 * FIRST_RETRY_S),
        (STOP, 3, LAST_RETRY_S),
        (STOP, 10**6, LAST_RETRY_S),
        (EXPIRE, 2, 4 * FIRST_RETRY_S),
        (EXPIRE, 3, LAST_RETRY_OF_EXPIRY_S),
    ],
)
def test_what_failed_is_tried_again_later_and_later_but_never_given_up_for_ever(
    action: Action, count: int, pause_s: float
) -> None:
    assert retry_in_s(action, Failures(count=count, ago_s=0)) == pause_s
    assert retry_in_s(action, Failures(count=count, ago_s=pause_s)) == 0
    assert retry_in_s(action, None) == 0


def crowd(*machines: tuple[str, Heat, float], **facts: object) -> list[Subject]:
    return [replace(one(heat, idle_s, **facts), id=name) for name, heat, idle_s in machines]


def done(found: Round) -> list[tuple[str, Action]]:
    return [(decision.sandbox_id, decision.action) for decision in found.decisions]


def test_a_pressed_host_cools_the_idlest_warm_ones_before_any_hot_one_and_few_at_a_time() -> None:
    subjects = crowd(
        ("hot-idle", HOT, 29), ("warm-1", WARM, 40), ("warm-3", WARM, 60), ("hot", HOT, 10), ("warm-2", WARM, 50)
    )
    found = decide(subjects, PRESSED_SWAPLESS, POLICY, stops_free=9)
    assert done(found) == [("warm-3", STOP), ("warm-2", STOP), ("warm-1", STOP), ("hot-idle", PAUSE)]
    assert found.skips == {"hot": Skip.ROUND_FULL}


def test_when_no_stop_is_free_a_pressed_host_still_pauses_hot_ones() -> None:
    subjects = crowd(("hot", HOT, 10), ("warm-1", WARM, 40), ("warm-2", WARM, 50))
    found = decide(subjects, PRESSED_SWAPLESS, POLICY, stops_free=1)
    assert done(found) == [("warm-2", STOP), ("hot", PAUSE)]
    assert found.skips == {"warm-1": Skip.ROUND_FULL}


def test_stops_for_idleness_take_turns_the_idlest_first() -> None:
    subjects = crowd(("a", WARM, 1900), ("b", WARM, 2100), ("c", HOT, 2000), paged_out=True)
    found = decide(subjects, ROOMY, POLICY, stops_free=2)
    assert done(found) == [("b", STOP), ("c", STOP)]
    assert found.skips == {"a": Skip.ROUND_FULL}


def test_disk_and_swap_are_handed_out_once() -> None:
    host = replace(ROOMY, disk_free_mib=512 + 150, swap_free_mib=150)
    stops = decide(crowd(("a", WARM, 1800), ("b", WARM, 1900), paged_out=True), host, POLICY, stops_free=2)
    assert (done(stops), stops.skips) == ([("b", STOP)], {"a": Skip.DISK_LOW})
    pages = decide(crowd(("a", WARM, 100), ("b", WARM, 200)), host, POLICY, stops_free=2)
    assert (done(pages), pages.skips) == ([("b", PAGE_OUT)], {"a": Skip.NO_SWAP})


@pytest.mark.parametrize(
    ("subject", "host", "next_s"),
    [
        (one(HOT, 10), ROOMY, 20),
        (one(HOT, 10, ttl_left_s=5), ROOMY, 5),
        (one(HOT, 10, ttl_left_s=5, attached=True), ROOMY, 5),
        (one(HOT, 10, attached=True), ROOMY, None),
        (one(WARM, 40), ROOMY, 50),
        (one(WARM, 40), SWAPLESS, 1760),
        (one(WARM, 100, paged_out=True), ROOMY, 1700),
        (one(WARM, 1900, paged_out=True, failures={STOP: Failures(count=1, ago_s=10)}), ROOMY, 50),
        (one(COLD, 10), ROOMY, None),
        (one(COLD, 10, ttl_left_s=100), ROOMY, 100),
    ],
)
def test_the_next_moment_that_time_alone_brings_is_told(
    subject: Subject, host: HostState, next_s: float | None
) -> None:
    assert decide([subject], host, POLICY, stops_free=2).next_s == next_s


def test_the_operators_numbers_are_the_policys() -> None:
    policy = policy_of(Settings(idle_pause_s=1, idle_stop_s=2, min_free_mib=3))
    assert (policy.idle_pause_s, policy.idle_stop_s, policy.min_free_mib) == (1, 2, 3)
    assert (Settings().idle_pause_s, Settings().idle_stop_s) == (30, 1800)


SECONDS = st.floats(0, 1e8)
FAILURES = st.builds(Failures, count=st.integers(0, 5), ago_s=SECONDS)
SUBJECTS = st.builds(
    Subject,
    id=st.just("sb"),
    heat=st.sampled_from(Heat),
    idle_s=SECONDS,
    attached=st.booleans(),
    operating=st.booleans(),
    busy=st.booleans(),
    can_sleep=st.booleans(),
    keep_hot=st.booleans(),
    paged_out=st.booleans(),
    idle_pause_s=st.none() | SECONDS,
    idle_stop_s=st.none() | SECONDS,
    ttl_left_s=st.none() | st.floats(-1e6, 1e8),
    private_mib=st.integers(0, 10_000),
    failures=st.dictionaries(st.sampled_from(Action), FAILURES, max_size=2),
)
HOSTS = st.builds(
    HostState,
    pressure=st.sampled_from(PressureLevel),
    swap_free_mib=st.integers(0, 20_000),
    disk_free_mib=st.integers(0, 100_000),
)
STAGES: Mapping[Action, int] = {PAUSE: 1, PAGE_OUT: 2, STOP: 3, EXPIRE: 4}


def named(subjects: Sequence[Subject]) -> list[Subject]:
    return [replace(subject, id=f"sb-{number}") for number, subject in enumerate(subjects)]


def stage(subject: Subject, decisions: Sequence[Decision]) -> int:
    """How cold a machine is once everything is done: 0 hot, 1 paused, 2 paged out, 3 on disk, 4 gone."""
    now = {HOT: 0, WARM: 2 if subject.paged_out else 1, COLD: 3}[subject.heat]
    return next((STAGES[found.action] for found in decisions if found.sandbox_id == subject.id), now)


@given(st.lists(SUBJECTS, max_size=12), HOSTS, st.integers(0, 3))
def test_every_machine_is_judged_once_and_only_made_colder(
    found: list[Subject], host: HostState, stops_free: int
) -> None:
    subjects = named(found)
    judged = decide(subjects, host, POLICY, stops_free=stops_free)
    assert sorted([decision.sandbox_id for decision in judged.decisions] + list(judged.skips)) == sorted(
        subject.id for subject in subjects
    )
    for subject in subjects:
        assert stage(subject, judged.decisions) >= stage(subject, [])
    actions = [decision.action for decision in judged.decisions]
    assert actions.count(STOP) <= stops_free
    assert sum(decision.reason is PRESSURE for decision in judged.decisions) <= POLICY.pressure_per_round
    assert judged.next_s is None or judged.next_s > 0


@given(st.lists(SUBJECTS, max_size=12), HOSTS)
def test_nothing_but_the_end_of_its_time_touches_a_machine_that_is_pinned(
    found: list[Subject], host: HostState
) -> None:
    subjects = {subject.id: subject for subject in named(found)}
    for decision in decide(subjects.values(), host, POLICY, stops_free=3).decisions:
        subject = subjects[decision.sandbox_id]
        assert not subject.busy
        if decision.action is EXPIRE:
            assert subject.ttl_left_s is not None
            assert subject.ttl_left_s <= 0
        else:
            assert not (subject.keep_hot or subject.attached or subject.operating)
            assert subject.heat is not COLD
            assert subject.can_sleep


@given(SUBJECTS, HOSTS, SECONDS)
def test_more_idleness_never_makes_a_machine_hotter(subject: Subject, host: HostState, more_s: float) -> None:
    idler = replace(subject, idle_s=subject.idle_s + more_s)
    before, after = (decide([each], host, POLICY, stops_free=2).decisions for each in (subject, idler))
    assert stage(idler, after) >= stage(subject, before)


@given(st.lists(SUBJECTS, max_size=12), HOSTS)
def test_among_equals_the_idler_is_never_left_hotter(found: list[Subject], host: HostState) -> None:
    twins = [replace(found[0], id=f"sb-{n}", idle_s=each.idle_s) for n, each in enumerate(found)] if found else []
    decisions = decide(twins, replace(host, pressure=PressureLevel.NONE), POLICY, stops_free=2).decisions
    stages = [stage(twin, decisions) for twin in sorted(twins, key=lambda twin: (-twin.idle_s, twin.id))]
    assert stages == sorted(stages, reverse=True)


def test_a_year_passes_in_six_looks_an_hour() -> None:
    """Used for a minute every hour of every day, with a stop that fails now and then, and a time to live of a year."""
    looks = 0
    now_s, used_s, heat, paged_out = 0.0, 0.0, HOT, False
    seen: dict[Action, int] = dict.fromkeys(Action, 0)
    failures: dict[Action, tuple[int, float]] = {}
    while not seen[EXPIRE]:
        if now_s % 3600 == 0:
            used_s, heat, paged_out = now_s + 60, HOT, False
        subject = Subject(
            id="sb-1",
            heat=heat,
            idle_s=max(0.0, now_s - used_s),
            operating=now_s < used_s,
            paged_out=paged_out,
            ttl_left_s=YEAR_S - now_s,
            failures={action: Failures(count=count, ago_s=now_s - at) for action, (count, at) in failures.items()},
        )
        looks += 1
        found = decide([subject], ROOMY, POLICY, stops_free=1)
        for decision in found.decisions:
            seen[decision.action] += 1
            match decision.action:
                case Action.PAUSE:
                    heat = WARM
                case Action.PAGE_OUT:
                    paged_out = True
                case Action.STOP if seen[STOP] % 100 == 1:
                    failures[STOP] = (1, now_s)
                case Action.STOP:
                    heat = COLD
                    failures.pop(STOP, None)
                case Action.EXPIRE:
                    assert now_s == YEAR_S
        next_use_s = used_s if now_s < used_s else (now_s // 3600 + 1) * 3600
        # What failed just now was not known when the next moment was reckoned: look again soon, as the loop does.
        look_again_s = now_s + 5 if failures else YEAR_S
        now_s = min(next_use_s, look_again_s, YEAR_S if found.next_s is None else now_s + found.next_s)
    hours = int(YEAR_S) // 3600
    assert seen[PAUSE] == seen[PAGE_OUT] == hours
    assert hours < seen[STOP] < hours * 1.02
    assert seen[EXPIRE] == 1
    assert looks < 6 * hours
