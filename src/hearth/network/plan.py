"""The addresses and names of a machine's own little network; pure values.

Every machine sees the same addresses, because a clone wakes with those of its template; the namespace tells them apart.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

from hearth.errors import InvalidInput
from hearth.model import check_name

PREFIX = "hearth-"
TAP_NAME = "tap0"
NET_NAME = "net0"
"""One name for all: each namespace has one TAP and, where it is connected, one way to its owner's bridge."""
NET_INDEX = 1_000_000_000
"""Its number, which no link of the hub comes to have; see ``links.add_veth``."""
LONGEST_OWNER_BYTES = 255
NAMED = re.compile(r"[bm][0-9a-f]{8}")


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

    ``tap_fd`` belongs to the caller, who hands it to the VMM and closes its own copy; where ``namespace`` is empty the
    network is the VMM's own and this is its gate (``hearth.host.enclosure``). ``address`` is what the sandbox is called
    by among its owner's; None for one that is connected to nothing. The guest need not know it.
    """

    namespace: str
    tap_fd: int
    guest_ip: IPv4Address
    prefix_length: int
    gateway: IPv4Address
    mac: str
    address: IPv4Address | None = None


def hub_name(tag: str) -> str:
    """Name the namespace with the owners' bridges; no sandbox's name, because no label has a dot."""
    return f"{PREFIX}{tag}.hub"


def slot_prefix(tag: str) -> str:
    """Tell how the names of namespaces begin that are made ahead and nobody's yet."""
    return f"{PREFIX}{tag}.slot-"


def uplink_name(tag: str) -> str:
    """Name the hub's link on the host, and our table there: the only things of ours in the host's own namespace."""
    return f"{PREFIX}{tag}"


def bridge_name(block: IPv4Network) -> str:
    """Name the bridge of an owner's block, inside the hub."""
    return f"b{int(block.network_address):08x}"


def port_name(address: IPv4Address) -> str:
    """Name the hub's end of a machine's link."""
    return f"m{int(address):08x}"


def named_address(name: str) -> IPv4Address | None:
    """Tell the address in the name of a bridge or a port; None in the name of anything else."""
    return IPv4Address(int(name[1:], 16)) if NAMED.fullmatch(name) else None


def namespace_prefix(tag: str) -> str:
    """Tell how the names of all namespaces of the daemon marked ``tag`` begin."""
    return f"{PREFIX}{tag}-"


def namespace_name(tag: str, sandbox_id: str) -> str:
    """Name the namespace of one sandbox.

    Raises:
        InvalidInput: the id is no DNS label; it could otherwise point out of the directory of names.
    """
    return namespace_prefix(tag) + check_name(sandbox_id, what="sandbox_id")


def check_owner(owner: str) -> str:
    """Return an owner's name that a link can bear as its alias (IFALIASZ, 255 bytes).

    Raises:
        InvalidInput: it cannot.
    """
    if not owner or not owner.isprintable() or len(owner.encode()) > LONGEST_OWNER_BYTES:
        raise InvalidInput(
            "invalid owner of a network",
            details=repr(owner[:80]),
            resolution=f"use 1 to {LONGEST_OWNER_BYTES} bytes of printable characters",
            field="owner",
        )
    return owner
