"""How often somebody may ask: so many a minute, so many at once. Numbers only; ``control.rates`` counts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

SECONDS = 60


@dataclass(frozen=True, kw_only=True)
class PerMinute:
    """So many requests a minute, and so many at once."""

    count: int
    burst: int


@dataclass(frozen=True, kw_only=True)
class ApiRates:
    """The bounds of the API over the network; None is none. The host's own socket has no bounds.

    ``create`` what makes something, ``use`` commands and other changes, ``read`` the rest: of each user. ``address`` is
    everything from one address, ``failures`` how often one address may be nobody.
    """

    create: PerMinute | None = PerMinute(count=30, burst=10)
    use: PerMinute | None = PerMinute(count=600, burst=30)
    read: PerMinute | None = PerMinute(count=1200, burst=60)
    address: PerMinute | None = PerMinute(count=6000, burst=600)
    failures: PerMinute | None = PerMinute(count=60, burst=30)

    def but(self, others: Mapping[str, PerMinute | None]) -> ApiRates:
        """Give these with some replaced."""
        return replace(self, **dict(others))


RATE_NAMES = ("create", "use", "read", "address", "failures")
DEFAULT_RATES = ApiRates()
