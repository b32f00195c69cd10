"""When certificates are ordered: pure functions of what there is, what failed, and the time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Protocol

from msgspec import Struct

RENEW_SHARE = 3
"""A certificate is renewed when this part of its life is left (a third: what Let's Encrypt recommends)."""
FIRST_RETRY = timedelta(minutes=15)
LAST_RETRY = timedelta(hours=24)
"""Doubled from the first to the last: at most three in the first hour, where Let's Encrypt allows five."""
NEW_PER_WEEK = 40
"""Names certified for the first time; Let's Encrypt allows 50 a week for a domain, and renewals beside them."""
WEEK = timedelta(days=7)
LONGEST_LOOK = timedelta(hours=1)
SHORTEST_LOOK = timedelta(seconds=1)


class Failure(Struct, frozen=True, kw_only=True):
    """The last order of a name, which failed for the ``count``-th time in a row."""

    count: int
    error: str
    retry_at: datetime


class Dated(Protocol):
    """A certificate, as far as the calendar is concerned."""

    @property
    def not_before(self) -> datetime: ...

    @property
    def not_after(self) -> datetime: ...

    @property
    def issued_at(self) -> datetime: ...

    @property
    def is_renewal(self) -> bool: ...


def renew_at(dated: Dated) -> datetime:
    """Tell when a certificate is to be renewed."""
    return dated.not_after - (dated.not_after - dated.not_before) / RENEW_SHARE


def failed(before: Failure | None, error: str, now: datetime, *, retry_after_s: float | None = None) -> Failure:
    """Give the failure after ``before``: twice as long until it is tried again, longer where the authority says so."""
    count = 1 if before is None else before.count + 1
    pause = min(FIRST_RETRY * 2 ** min(count - 1, 16), LAST_RETRY)
    if retry_after_s is not None:
        pause = max(pause, min(timedelta(seconds=retry_after_s), WEEK))
    return Failure(count=count, error=error, retry_at=now + pause)


def free_at(held: Iterable[Dated], now: datetime) -> datetime | None:
    """Tell when a new name may be certified again; None when one may be now."""
    recent = sorted(each.issued_at for each in held if not each.is_renewal and now - each.issued_at < WEEK)
    return recent[-NEW_PER_WEEK] + WEEK if len(recent) >= NEW_PER_WEEK else None


def next_try(name: str, held: Mapping[str, Dated], failures: Mapping[str, Failure], now: datetime) -> datetime:
    """Tell when a name is to be ordered, or ordered again."""
    at = renew_at(held[name]) if name in held else free_at(held.values(), now) or now
    failure = failures.get(name)
    return at if failure is None else max(at, failure.retry_at)


def due(wanted: Iterable[str], held: Mapping[str, Dated], failures: Mapping[str, Failure], now: datetime) -> str | None:
    """Give the name to order now: first of those that have none, then of those that expire first; None for nobody."""
    ready = [name for name in wanted if next_try(name, held, failures, now) <= now]
    return min(ready, key=lambda name: (name in held, held[name].not_after if name in held else now), default=None)


def look_again_s(
    wanted: Iterable[str], held: Mapping[str, Dated], failures: Mapping[str, Failure], now: datetime
) -> float:
    """Tell how long nothing is due, in seconds; clocks jump, so it is never very long."""
    first = min((next_try(name, held, failures, now) for name in wanted), default=now + LONGEST_LOOK)
    return min(max(first - now, SHORTEST_LOOK), LONGEST_LOOK).total_seconds()
