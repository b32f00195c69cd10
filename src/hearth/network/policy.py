"""What a sandbox may reach beyond itself: a value that comes from outside, checked once, and its meaning.

Some places no policy opens: the host, its loopback, link-local addresses with the cloud's metadata, other owners.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import AddressValueError, IPv4Address, IPv4Network, NetmaskValueError, collapse_addresses
from typing import Any

from hearth.bounds import FASTEST_BYTES_PER_S, MAX_NET_ENTRIES, SLOWEST_BYTES_PER_S
from hearth.errors import InvalidInput

LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
LONGEST_NAME = 253

NEVER = tuple(
    IPv4Network(text)
    for text in (
        "0.0.0.0/8",  # "this network": many systems take 0.0.0.0 for the loopback
        "127.0.0.0/8",
        "168.63.129.16/32",  # Azure's metadata and DNS, at a public address
        "169.254.0.0/16",  # link-local: metadata of most clouds
        "172.16.0.0/30",  # the guest's own wire
        "224.0.0.0/3",  # multicast, reserved, broadcast
    )
)
"""Opened by no policy."""
PRIVATE = tuple(
    IPv4Network(text)
    for text in (
        "10.0.0.0/8",
        "100.64.0.0/10",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
    )
)
"""Not the world (RFC 6890): closed unless a policy lists a network that holds the address."""


class Base(StrEnum):
    """What is decided about the world where no list says otherwise."""

    PUBLIC = "public"
    DENY = "deny"


@dataclass(frozen=True, kw_only=True)
class Policy:
    """What one sandbox may reach. The default is the closed one.

    Args:
        base: the world, or nothing of it.
        networks: reachable in addition, private ones included.
        names: of hosts, reachable in addition while an answer of our resolver to this guest holds; ``*.example.com``
            stands for everything below, not for ``example.com`` itself.
        neighbours: the owner's other sandboxes, both ways.
        audit: what ``base`` would refuse of the world is let through and told, so that a list can be made from it.
        upload_bytes_per_s, download_bytes_per_s: bounds for everything that enters or leaves the sandbox's network
            but the daemon's own talk with its agent; None for no bound.
    """

    base: Base = Base.DENY
    networks: tuple[IPv4Network, ...] = ()
    names: tuple[str, ...] = ()
    neighbours: bool = True
    audit: bool = False
    upload_bytes_per_s: int | None = None
    download_bytes_per_s: int | None = None

    def allows_name(self, name: str) -> bool:
        """Tell whether the resolver may ask the world for ``name`` (lower case, without a final dot)."""
        return self.base is Base.PUBLIC or self.audit or self.binds(name)

    def binds(self, name: str) -> bool:
        """Tell whether the answers for ``name`` are opened."""
        return any(matches(pattern, name) for pattern in self.names)

    @property
    def reaches_out(self) -> bool:
        """True when anything beyond the owner's sandboxes may be reached."""
        return self.base is Base.PUBLIC or self.audit or bool(self.networks or self.names)

    def is_within(self, other: Policy) -> bool:
        """Tell whether nothing is open here, or faster, that is not in ``other``."""
        public = other.base is Base.PUBLIC
        return (
            (self.base is Base.DENY or public)
            and (other.neighbours or not self.neighbours)
            and (other.audit or not self.audit)
            and all(any(mine.subnet_of(each) for each in other.networks) for mine in self.networks)
            and (public or all(name in other.names for name in self.names))
            and _not_faster(self.upload_bytes_per_s, other.upload_bytes_per_s)
            and _not_faster(self.download_bytes_per_s, other.download_bytes_per_s)
        )

    def describe(self) -> dict[str, Any]:
        """Give what ``parse_policy`` takes, for the store."""
        return {
            "base": self.base.value,
            "networks": [str(network) for network in self.networks],
            "names": list(self.names),
            "neighbours": self.neighbours,
            "audit": self.audit,
            "upload_bytes_per_s": self.upload_bytes_per_s,
            "download_bytes_per_s": self.download_bytes_per_s,
        }

    def generation(self, salt: str) -> int:
        """Give the 32 bits, not 0, that mark connections judged by this policy; ``salt`` is of the rules' version."""
        said = json.dumps([salt, self.describe()], sort_keys=True).encode()
        return int.from_bytes(hashlib.blake2b(said, digest_size=4).digest(), "big") | 1


DEFAULT = Policy()
"""Its owner's others, and nothing of the world."""
CLOSED = Policy(neighbours=False)
PUBLIC = Policy(base=Base.PUBLIC)


def matches(pattern: str, name: str) -> bool:
    """Tell whether a name, lower case, is meant by a pattern."""
    if pattern.startswith("*."):
        return name.endswith(pattern[1:]) and len(name) > len(pattern) - 1
    return name == pattern


def is_private(address: IPv4Address) -> bool:
    """Tell whether an address lies outside the public world."""
    return any(address in network for network in (*NEVER, *PRIVATE))


def parse_policy(said: Mapping[str, Any]) -> Policy:
    """Check a policy from outside: the keys of ``Policy``, all optional, networks and names as lists of strings.

    Raises:
        InvalidInput: names the field and what is wrong with it.
    """
    known = {"base", "networks", "names", "neighbours", "audit", "upload_bytes_per_s", "download_bytes_per_s"}
    for key in said:
        if key not in known:
            raise _invalid(str(key), "there is no such field", f"use {', '.join(sorted(known))}")
    try:
        base = Base(said.get("base", Base.DENY))
    except ValueError as error:
        raise _invalid("base", f"{said['base']!r}", "use 'public' or 'deny'") from error
    networks = collapse_addresses(_network(text) for text in _strings(said, "networks"))
    names = dict.fromkeys(check_pattern(text) for text in _strings(said, "names"))
    return Policy(
        base=base,
        networks=tuple(networks),
        names=tuple(names),
        neighbours=_boolean(said, "neighbours", True),
        audit=_boolean(said, "audit", False),
        upload_bytes_per_s=_rate(said, "upload_bytes_per_s"),
        download_bytes_per_s=_rate(said, "download_bytes_per_s"),
    )


def check_pattern(text: str) -> str:
    """Return a host name or ``*.`` and one, lower case, without a final dot.

    Raises:
        InvalidInput: it is neither.
    """
    pattern = text.lower().removesuffix(".")
    name = pattern.removeprefix("*.")
    labels = name.split(".")
    if len(name) > LONGEST_NAME or not all(LABEL.fullmatch(label) for label in labels) or labels[-1].isdigit():
        raise _invalid("names", f"{text[:80]!r} is no host name", "use names like api.example.com or *.example.com")
    return pattern


def _not_faster(mine: int | None, other: int | None) -> bool:
    return other is None or (mine is not None and mine <= other)


def _network(text: str) -> IPv4Network:
    try:
        network = IPv4Network(text)
    except (AddressValueError, NetmaskValueError, ValueError) as error:
        raise _invalid("networks", str(error), "use IPv4 networks like 192.0.2.0/24 or addresses") from error
    if any(network.subnet_of(never) for never in NEVER):
        raise _invalid("networks", f"no policy opens {network}", "leave it out")
    return network


def _strings(said: Mapping[str, Any], field: str) -> list[str]:
    value = said.get(field, [])
    if not isinstance(value, list | tuple) or not all(isinstance(each, str) for each in value):
        raise _invalid(field, "it is no list of strings", f'write "{field}": ["...", "..."]')
    if len(value) > MAX_NET_ENTRIES:
        raise _invalid(field, f"it has {len(value)} entries", f"use at most {MAX_NET_ENTRIES}")
    return list(value)


def _boolean(said: Mapping[str, Any], field: str, default: bool) -> bool:
    value = said.get(field, default)
    if not isinstance(value, bool):
        raise _invalid(field, f"{value!r} is neither true nor false", "use true or false")
    return value


def _rate(said: Mapping[str, Any], field: str) -> int | None:
    value = said.get(field)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not SLOWEST_BYTES_PER_S <= value <= FASTEST_BYTES_PER_S:
        hint = f"use {SLOWEST_BYTES_PER_S} to {FASTEST_BYTES_PER_S} bytes per second, or null for no bound"
        raise _invalid(field, f"{value!r}", hint)
    return value


def _invalid(field: str, details: str, resolution: str) -> InvalidInput:
    return InvalidInput(f"invalid {field} in the egress policy", details=details, resolution=resolution, field=field)
