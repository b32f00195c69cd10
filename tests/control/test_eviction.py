"""Which templates go: tables of need, age and space."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from hearth.control.eviction import MachineTemplate, unwanted

NOW = datetime(2026, 1, 31, tzinfo=UTC)
DAY_S = 86400.0


def template(
    name: str, *, days: float = 0, size: int = 10, needed: bool = False, stale: bool = False
) -> MachineTemplate:
    """A template last used so many days ago."""
    return MachineTemplate(
        id=name,
        image="debian",
        cpus=1,
        memory_mib=256,
        size_bytes=size,
        uses=int(needed),
        created_at=NOW - timedelta(days=100),
        used_at=NOW - timedelta(days=days),
        is_needed=needed,
        is_stale=stale,
    )


CASES = {
    "nothing": ([], 100, 0, []),
    "all fit and are young": ([template("a"), template("b", days=6.9)], 20, 0, []),
    "old": ([template("a", days=7.1), template("b")], 100, 0, ["a"]),
    "old and needed": ([template("a", days=70, needed=True)], 100, 0, []),
    "stale": ([template("a", stale=True), template("b")], 100, 0, ["a"]),
    "stale and needed": ([template("a", stale=True, needed=True)], 100, 0, []),
    "too much: least recently used first": (
        [template("a", days=1), template("b", days=3), template("c", days=2)],
        15,
        0,
        ["b", "c"],
    ),
    "too much, and needed ones count": (
        [template("a", needed=True, size=90), template("b"), template("c", days=1)],
        100,
        0,
        ["c"],
    ),
    "needed ones alone are too much": ([template("a", needed=True, size=900)], 100, 0, []),
    "what is old makes the room": ([template("a", days=8), template("b", days=1), template("c")], 20, 0, ["a"]),
    "exactly what may be": ([template("a"), template("b", days=1)], 20, 0, []),
    "the disk is full": ([template("a"), template("b", days=1), template("c", days=2)], 100, 15, ["c", "b"]),
    "the disk is not full": ([template("a")], 100, -500, []),
}


@pytest.mark.parametrize("name", CASES)
def test_what_goes_and_in_which_order(name: str) -> None:
    templates, max_bytes, missing_bytes, expected = CASES[name]
    for order in (templates, templates[::-1]):
        found = unwanted(order, now=NOW, max_age_s=7 * DAY_S, max_bytes=max_bytes, missing_bytes=missing_bytes)
        assert found == expected


def test_a_use_makes_an_old_template_young_again() -> None:
    old = template("a", days=30)
    used = replace(old, used_at=NOW)
    policy = {"now": NOW, "max_age_s": 7 * DAY_S, "max_bytes": 100, "missing_bytes": 0}
    assert unwanted([old], **policy) == ["a"]  # type: ignore[arg-type]
    assert unwanted([used], **policy) == []  # type: ignore[arg-type]
