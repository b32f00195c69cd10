"""Which names led one guest to which addresses, and for how long: it opens addresses, and names them in events."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from ipaddress import IPv4Address

from hearth.network.policy import Policy

SHORTEST_S = 60
"""Programs keep addresses longer than they should; a connection may follow its answer late."""
LONGEST_S = 3600
MOST_ADDRESSES = 4096
MOST_NAMES = 16
"""Of one address; a content network's has thousands."""


class Bindings:
    """The answers our resolver gave one guest. Bounded: what was told longest ago is forgotten first."""

    def __init__(self) -> None:
        self._names: OrderedDict[IPv4Address, OrderedDict[str, float]] = OrderedDict()

    def add(self, name: str, addresses: Mapping[IPv4Address, int], now_s: float) -> dict[IPv4Address, int]:
        """Note that ``name`` stands for ``addresses``, each for so many seconds; gives milliseconds as bounded here."""
        bound: dict[IPv4Address, int] = {}
        for address, ttl_s in addresses.items():
            kept_s = min(max(ttl_s, SHORTEST_S), LONGEST_S)
            names = self._names.pop(address, OrderedDict())
            names.pop(name, None)
            names[name] = now_s + kept_s
            while len(names) > MOST_NAMES:
                names.popitem(last=False)
            self._names[address] = names
            bound[address] = kept_s * 1000
        while len(self._names) > MOST_ADDRESSES:
            self._names.popitem(last=False)
        return bound

    def name_of(self, address: IPv4Address) -> str:
        """Tell the name that last led to an address; "" when none did."""
        names = self._names.get(address)
        return next(reversed(names)) if names else ""

    def opened_by(self, policy: Policy, now_s: float) -> dict[IPv4Address, int]:
        """Give the addresses that names of ``policy`` stand for now, each with the milliseconds left."""
        opened: dict[IPv4Address, int] = {}
        for address, names in self._names.items():
            ends = [end_s for name, end_s in names.items() if end_s > now_s and policy.binds(name)]
            if ends:
                opened[address] = max(1, int((max(ends) - now_s) * 1000))
        return opened
