"""How often the public may ask: pages of dev servers pass, floods do not, and memory is bounded."""

from __future__ import annotations

import time

import pytest

from hearth.control.buckets import Buckets, Crowd, PublicRates, Rate, subscriber

MODULES = 300


def test_a_person_may_load_a_page_of_300_modules_every_second() -> None:
    rates = PublicRates()
    for second in range(30):
        assert all(rates.allow(alias="web", address="203.0.113.9", now_s=second) for _ in range(MODULES))


def test_a_flood_from_one_address_is_stopped_and_others_are_not() -> None:
    rates = PublicRates()
    allowed = sum(rates.allow(alias="web", address="203.0.113.9", now_s=0) for _ in range(20_000))
    assert allowed == 3_000
    assert rates.allow(alias="web", address="203.0.113.10", now_s=0)


def test_who_is_refused_for_himself_takes_nothing_from_the_others() -> None:
    rates = PublicRates(every=Rate(per_s=0, burst=5), alias=Rate(per_s=0, burst=4), address=Rate(per_s=0, burst=2))
    assert [rates.allow(alias="web", address="a", now_s=0) for _ in range(9)].count(True) == 2
    assert [rates.allow(alias="web", address="b", now_s=0) for _ in range(9)].count(True) == 2
    assert not rates.allow(alias="web", address="c", now_s=0)
    assert rates.allow(alias="other", address="d", now_s=0)
    assert not rates.allow(alias="other", address="e", now_s=0)


def test_the_bucket_not_used_for_longest_goes_first() -> None:
    buckets = Buckets(Rate(per_s=0, burst=1), limit=2)
    assert [buckets.take(key, 0) for key in ("a", "b", "a", "c")] == [True, True, False, True]
    assert len(buckets) == 2
    assert buckets.take("a", 0) is False, "it was used after b, so it is still there"
    assert buckets.take("b", 0) is True


def test_eviction_costs_the_same_however_many_there_are() -> None:
    def cost_s(limit: int) -> float:
        buckets = Buckets(Rate(per_s=1, burst=1), limit=limit)
        for number in range(limit):
            buckets.take(str(number), 0)
        started = time.thread_time()
        for number in range(20_000):
            buckets.take(f"new {number}", 0)
        return time.thread_time() - started

    assert min(cost_s(200_000) for _ in range(2)) < 20 * min(cost_s(100) for _ in range(2))


def test_a_crowd_is_bounded_key_by_key_and_forgets_who_has_left() -> None:
    crowd = Crowd(2)
    with crowd.entered("a") as first, crowd.entered("a") as second, crowd.entered("b") as other:
        with crowd.entered("a") as third:
            assert (first, second, other, third) == (True, True, True, False)
        with crowd.entered("a") as fourth:
            assert not fourth
    assert len(crowd) == 0
    with crowd.entered("a") as again:
        assert again


@pytest.mark.parametrize(
    ("address", "stands_for"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::ffff:203.0.113.9", "203.0.113.9"),
        ("", ""),
    ],
)
def test_one_subscriber_is_one_key(address: str, stands_for: str) -> None:
    assert subscriber(address) == stands_for
