"""Token buckets of the API: one for each user and kind of request, and for each address."""

from __future__ import annotations

from typing import Literal

from hearth.control.buckets import Buckets, Rate, subscriber
from hearth.errors import RateLimited
from hearth.rates import RATE_NAMES, SECONDS, ApiRates, PerMinute

RateName = Literal["create", "use", "read", "address", "failures"]


class Turnstile:
    """Counts requests; who asked too much is told when to ask again."""

    def __init__(self, rates: ApiRates) -> None:
        self._rates: dict[str, PerMinute] = {}
        self._buckets: dict[str, Buckets] = {}
        for name in RATE_NAMES:
            bound: PerMinute | None = getattr(rates, name)
            if bound is not None:
                self._rates[name] = bound
                self._buckets[name] = Buckets(Rate(per_s=bound.count / SECONDS, burst=bound.burst))

    def take(self, name: RateName, who: str, now_s: float) -> None:
        """Count one request.

        Raises:
            RateLimited: ``who`` has asked for as much as may be; the error tells when there is more.
        """
        buckets = self._buckets.get(name)
        if buckets is None or buckets.take(who, now_s):
            return
        bound = self._rates[name]
        error = RateLimited(
            "too many requests",
            details=f"rate {name}: {bound.count} a minute may be asked, {bound.burst} at once",
            resolution="wait as long as Retry-After says",
        )
        error.retry_after_s = SECONDS / bound.count
        raise error

    def take_address(self, name: Literal["address", "failures"], address: str, now_s: float) -> None:
        """Count one request from an address; of IPv6 a whole network counts as one. Raises RateLimited."""
        self.take(name, subscriber(address), now_s)
