"""Token buckets of the API: one for each user and kind of request, and for each address."""

from __future__ import annotations

from typing import Literal

from hearth.control.buckets import Buckets, Rate, subscriber
from hearth.control.shared_rates import SharedRates
from hearth.errors import RateLimited
from hearth.rates import RATE_NAMES, SECONDS, ApiRates, PerMinute

RateName = Literal["create", "use", "read", "address", "failures"]


class Turnstile:
    """Counts requests; who asked too much is told when to ask again. ``shared`` counts those of other daemons, too."""

    def __init__(self, rates: ApiRates, shared: SharedRates | None = None) -> None:
        self._shared = shared
        self._rates: dict[str, PerMinute] = {}
        self._buckets: dict[str, Buckets] = {}
        self.change(rates)

    def change(self, rates: ApiRates) -> None:
        """Let other rates hold from now on; of those that are as before nothing is forgotten."""
        for name in RATE_NAMES:
            bound: PerMinute | None = getattr(rates, name)
            if bound is None:
                self._rates.pop(name, None)
                self._buckets.pop(name, None)
            elif self._rates.get(name) != bound:
                self._rates[name] = bound
                self._buckets[name] = Buckets(Rate(per_s=bound.count / SECONDS, burst=bound.burst))

    async def take(self, name: RateName, who: str, now_s: float) -> None:
        """Count one request.

        Raises:
            RateLimited: ``who`` has asked for as much as may be; the error tells when there is more.
        """
        buckets = self._buckets.get(name)
        if buckets is None:
            return
        bound = self._rates[name]
        if buckets.take(who, now_s) and (self._shared is None or await self._shared.take(name, who, bound)):
            return
        error = RateLimited(
            "too many requests",
            details=f"rate {name}: {bound.count} a minute may be asked, {bound.burst} at once",
            resolution="wait as long as Retry-After says",
        )
        error.retry_after_s = SECONDS / bound.count
        raise error

    async def take_address(self, name: Literal["address", "failures"], address: str, now_s: float) -> None:
        """Count one request from an address; of IPv6 a whole network counts as one. Raises RateLimited."""
        await self.take(name, subscriber(address), now_s)
