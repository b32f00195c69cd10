"""The addresses and names of a machine's own little network; pure values.

Every machine sees the same addresses, because a clone wakes with those of its template; the namespace tells them apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface

from hearth.model import check_name

PREFIX = "hearth-"
TAP_NAME = "tap0"
"""One name for all: each TAP is alone with the loopback in its namespace."""


@dataclass(frozen=True, kw_only=True)
class AddressPlan:
    """The two ends of the wire between a guest and its namespace."""

    guest: IPv4Interface
    gateway: IPv4Interface
    guest_mac: str
    gateway_mac: str


PLAN = AddressPlan(
    guest=IPv4Interface("172.16.0.2/30"),
    gateway=IPv4Interface("172.16.0.1/30"),
    guest_mac="02:68:65:61:00:02",
    gateway_mac="02:68:65:61:00:01",
)
"""The second bit of the first MAC byte says "locally administered" (IEEE 802). The gateway's is constant as well: a
restored guest keeps its template's neighbour entry for it."""


@dataclass(frozen=True, kw_only=True)
class Link:
    """What ``setup`` gives: where the machine's network is and how the guest has to configure itself.

    ``tap_fd`` belongs to the caller, who hands it to the VMM and closes its own copy.
    """

    namespace: str
    tap_fd: int
    guest_ip: IPv4Address
    prefix_length: int
    gateway: IPv4Address
    mac: str


def namespace_prefix(tag: str) -> str:
    """Tell how the names of all namespaces of the daemon marked ``tag`` begin."""
    return f"{PREFIX}{tag}-"


def namespace_name(tag: str, sandbox_id: str) -> str:
    """Name the namespace of one sandbox.

    Raises:
        InvalidInput: the id is no DNS label; it could otherwise point out of the directory of names.
    """
    return namespace_prefix(tag) + check_name(sandbox_id, what="sandbox_id")
