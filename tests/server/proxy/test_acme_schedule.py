"""When certificates are ordered, renewed, and when not."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from hearth.server.proxy.acme.files import Dates
from hearth.server.proxy.acme.schedule import (
    LAST_RETRY,
    LONGEST_LOOK,
    NEW_PER_WEEK,
    Failure,
    due,
    failed,
    free_at,
    look_again_s,
    renew_at,
)

NOW = datetime(2026, 6, 1, tzinfo=UTC)


def dates(name: str = "web.zone", *, age_days: float = 0, life_days: float = 90, is_renewal: bool = False) -> Dates:
    since = NOW - timedelta(days=age_days)
    until = since + timedelta(days=life_days)
    return Dates(
        names=[name],
        directory="https://ca.example/dir",
        not_before=since,
        not_after=until,
        issued_at=since,
        is_renewal=is_renewal,
    )


@pytest.mark.parametrize("life_days", [90, 6, 0.5])
def test_a_certificate_is_renewed_when_a_third_of_its_life_is_left(life_days: float) -> None:
    fresh = dates(life_days=life_days)
    assert renew_at(fresh) - NOW == timedelta(days=life_days) * 2 / 3
    held = {"web.zone": fresh}
    assert due(["web.zone"], held, {}, NOW) is None
    assert due(["web.zone"], held, {}, renew_at(fresh)) == "web.zone"


def test_names_without_one_come_first_then_those_that_expire_first() -> None:
    held = {name: dates(name, age_days=age) for name, age in [("b", 70), ("c", 85), ("d", 1)]}
    wanted = ["d", "b", "c", "a"]
    order = []
    while (name := due(wanted, held, {}, NOW)) is not None:
        order.append(name)
        held[name] = dates(name)
    assert order == ["a", "c", "b"]


def test_failures_back_off_and_hold_back_their_own_name_only() -> None:
    failure, pauses = None, []
    for _ in range(12):
        failure = failed(failure, "no", NOW)
        pauses.append(failure.retry_at - NOW)
    assert pauses[:4] == [timedelta(minutes=minutes) for minutes in (15, 30, 60, 120)]
    assert pauses[-1] == LAST_RETRY
    within_an_hour = [sum(pauses[: n + 1], timedelta()) for n in range(4)]
    assert sum(at < timedelta(hours=1) for at in within_an_hour) < 5, "Let's Encrypt allows five an hour"
    failures = {"a": failed(None, "no", NOW)}
    assert due(["a", "b"], {}, failures, NOW) == "b"
    assert due(["a"], {}, failures, NOW) is None
    assert due(["a"], {}, failures, NOW + timedelta(minutes=15)) == "a"


def test_an_authority_that_says_when_to_come_again_is_believed_within_reason() -> None:
    assert failed(None, "no", NOW, retry_after_s=7200).retry_at == NOW + timedelta(hours=2)
    assert failed(None, "no", NOW, retry_after_s=1).retry_at == NOW + timedelta(minutes=15)
    assert failed(None, "no", NOW, retry_after_s=1e9).retry_at == NOW + timedelta(days=7)


def test_only_so_many_new_names_a_week_and_renewals_beside_them() -> None:
    held = {f"n{n}": dates(f"n{n}", age_days=6 - n / 100) for n in range(NEW_PER_WEEK)}
    assert due(["new"], held, {}, NOW) is None
    free = free_at(held.values(), NOW)
    assert free == min(each.issued_at for each in held.values()) + timedelta(days=7)
    assert due(["new"], held, {}, free) == "new"
    held["old"] = dates("old", age_days=80)
    assert due(["new", "old"], held, {}, NOW) == "old"
    del held["n0"]
    assert due(["new"], held, {}, NOW) == "new"
    renewed = {name: dates(name, is_renewal=True) for name in held}
    assert due(["new"], renewed, {}, NOW) == "new"


def test_the_next_look_is_when_something_is_due_and_never_very_late() -> None:
    failures = {"a": Failure(count=1, error="no", retry_at=NOW + timedelta(minutes=10))}
    assert look_again_s(["a"], {}, failures, NOW) == 600
    assert look_again_s(["a"], {"a": dates("a")}, {}, NOW) == LONGEST_LOOK.total_seconds()
    assert look_again_s([], {}, {}, NOW) == LONGEST_LOOK.total_seconds()
