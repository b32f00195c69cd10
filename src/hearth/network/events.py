"""What a sandbox tried to reach: events, and the shortest list of permissions that would have allowed it; pure."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network, collapse_addresses

from hearth.network.policy import Base, Policy, is_private

PROTOCOLS = {socket.IPPROTO_TCP: "tcp", socket.IPPROTO_UDP: "udp", socket.IPPROTO_ICMP: "icmp"}


class EventKind(StrEnum):
    DENIED = "denied"
    """A connection was refused."""
    NAME_DENIED = "name_denied"
    """The resolver refused a name."""
    SEEN = "seen"
    """A connection was made under audit."""


@dataclass(frozen=True, kw_only=True)
class EgressEvent:
    """One thing a sandbox tried.

    Args:
        rule: what decided: ``deny``, ``private``, ``never``, ``host``, ``owner``, ``neighbours``, ``agent``, ``name``,
            ``rebinding``, ``rate``, ``too many connections``; ``seen`` under audit.
        host: the name by which the guest came to the address, or which it asked for; "" when it used none.
        address: where it wanted to; None for a name.
        protocol: ``tcp``, ``udp``, ``icmp`` or a number; ``dns`` for a name.
        port: 0 where there is none.
    """

    sandbox_id: str
    kind: EventKind
    rule: str
    host: str
    address: IPv4Address | None = None
    protocol: str = "dns"
    port: int = 0


def minimal_policy(events: Iterable[EgressEvent], keep: Policy) -> Policy:
    """Give the shortest policy under which what was seen is allowed and nothing else of the world.

    Names stand for connections that were made by name, networks for those made by address; what was only asked for and
    never connected to is left out, as is what no list opens.

    Args:
        keep: where neighbours and rates are taken from.
    """
    names: set[str] = set()
    addresses: set[IPv4Address] = set()
    for event in events:
        if event.kind is not EventKind.SEEN or event.address is None:
            continue
        if event.host:
            names.add(event.host)
        elif not is_private(event.address):
            addresses.add(event.address)
    networks = collapse_addresses(IPv4Network(address) for address in addresses)
    return Policy(
        base=Base.DENY,
        networks=tuple(collapse_addresses([*keep.networks, *networks])),
        names=tuple(sorted({*keep.names, *(name for name in names if not keep.binds(name))})),
        neighbours=keep.neighbours,
        upload_bytes_per_s=keep.upload_bytes_per_s,
        download_bytes_per_s=keep.download_bytes_per_s,
    )


def protocol_name(number: int) -> str:
    """Name a transport protocol."""
    return PROTOCOLS.get(number, str(number))
