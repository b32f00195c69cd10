"""How often the public may ask: token buckets for all, for each address and for each alias.

Sized for pages of dev servers: one page loads 300 modules at once, and people reload. Eviction is O(1): the bucket not
used for longest goes, and one that comes again begins full, which the bucket for all bounds.
"""

from __future__ import annotations

import contextlib
import ipaddress
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

from hearth.network.bucket import Bucket

MAX_BUCKETS = 16_384
IPV6_PREFIX = 64
"""What one subscriber is given; an address alone would be changed for each request."""


@dataclass(frozen=True, kw_only=True)
class Rate:
    """So many a second, so many at once."""

    per_s: float
    burst: float


AT_ONCE = 512
"""Requests of one subscriber under way, WebSockets among them."""
ALL = Rate(per_s=5_000, burst=20_000)
OF_ALIAS = Rate(per_s=1_000, burst=6_000)
OF_ADDRESS = Rate(per_s=300, burst=3_000)
"""Ten loads of a page with 300 modules, and one more every second."""


class Buckets:
    """A bucket for each key, the latest used kept."""

    def __init__(self, rate: Rate, *, limit: int = MAX_BUCKETS) -> None:
        self._rate = rate
        self._limit = limit
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, key: str, now_s: float) -> bool:
        """Take one of a key's; False when there is none left."""
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = Bucket(per_s=self._rate.per_s, burst=self._rate.burst)
            if len(self._buckets) > self._limit:
                self._buckets.popitem(last=False)
        else:
            self._buckets.move_to_end(key)
        return bucket.take(now_s)


class Crowd:
    """Bounds how many requests of one key are under way; keys without any take no room."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._present: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._present)

    @contextlib.contextmanager
    def entered(self, key: str) -> Iterator[bool]:
        """Count one in for the length of the context; False when there are as many as may be, and it is not counted."""
        count = self._present.get(key, 0)
        if count >= self._limit:
            yield False
            return
        self._present[key] = count + 1
        try:
            yield True
        finally:
            if self._present[key] == 1:
                del self._present[key]
            else:
                self._present[key] -= 1


class PublicRates:
    """The three bounds of a public request."""

    def __init__(self, *, every: Rate = ALL, alias: Rate = OF_ALIAS, address: Rate = OF_ADDRESS) -> None:
        self._all = Bucket(per_s=every.per_s, burst=every.burst)
        self._of_alias = Buckets(alias)
        self._of_address = Buckets(address)
        self.crowd = Crowd(AT_ONCE)

    def allow(self, *, alias: str, address: str | None, now_s: float) -> bool:
        """Tell whether a request may come in; who is refused for himself takes nothing from the others."""
        return (
            (address is None or self._of_address.take(subscriber(address), now_s))
            and self._of_alias.take(alias, now_s)
            and self._all.take(now_s)
        )


def subscriber(address: str) -> str:
    """Give what stands for one subscriber: an IPv4 address, or the network of an IPv6 address."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if parsed.version == 4:
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((parsed, IPV6_PREFIX), strict=False))
