"""A machine's namespace ready for use: its rules, with its TAP, its end of the way to a bridge, and sockets.

Sockets belong for ever to the namespace they were made in, so whoever holds a slot can furnish it from any thread.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv4Network
from pathlib import Path

from hearth.host import links, netlink
from hearth.host.netlink import RouteSocket
from hearth.host.nft import Command
from hearth.host.nft_log import LogSocket
from hearth.host.nft_socket import NftSocket
from hearth.network import rules
from hearth.network.addresses import Lease, mac_of
from hearth.network.plan import NET_INDEX, NET_NAME, TAP_NAME, AddressPlan
from hearth.network.policy import DEFAULT, Policy
from hearth.network.rules import DENIED_GROUP, DNS, SEEN_GROUP

EVERYWHERE = IPv4Network("0.0.0.0/0")
LISTEN_BACKLOG = 16
SHORTEST_BURST_BYTES = 65_536
"""At least one packet as large as virtual links carry them (64 KiB, before segmentation)."""

NO_IPV6 = (("ipv6/conf/all/disable_ipv6", "1"), ("ipv6/conf/default/disable_ipv6", "1"))
STRICT = (
    "rp_filter=1",  # of two values the larger counts, and 2 is the looser one
    "arp_ignore=1",  # answer for a link's own address only
    "route_localnet=0",
    "proxy_arp=0",
    "accept_redirects=0",
    "send_redirects=0",
    "accept_source_route=0",
)
"""A new namespace copies the host's values of ``all`` and ``default`` (ip-sysctl.rst, devconf_inherit_init_net), and
most are combined from ``all`` and the link's own: both have to be set before the first link is made."""
FORWARDING = (
    *NO_IPV6,
    ("ipv4/conf/all/forwarding", "1"),
    *(
        (f"ipv4/conf/{scope}/{name}", value)
        for name, _, value in (setting.partition("=") for setting in STRICT)
        for scope in ("default", "all")
    ),
)


@dataclass(frozen=True, kw_only=True)
class Ears:
    """The sockets inside a machine's namespace that live as long as the machine is connected."""

    nft: NftSocket
    route: RouteSocket
    events: LogSocket
    datagrams: socket.socket
    streams: socket.socket

    def close(self) -> None:
        for each in (self.nft, self.route, self.events, self.datagrams, self.streams):
            each.close()


@dataclass(frozen=True, kw_only=True)
class Slot:
    """A furnished namespace that is nobody's yet.

    Args:
        namespace: its name now.
        tap_fd: for the VMM.
        port_index: number, in the hub, of the other end of its way out.
    """

    namespace: str
    tap_fd: int
    port_index: int
    ears: Ears

    def close(self) -> None:
        """Let go of everything in it; the namespace goes with its name."""
        os.close(self.tap_fd)
        self.ears.close()


def write_settings(settings: tuple[tuple[str, str], ...]) -> None:
    """Write kernel settings of this thread's namespace; those of parts this kernel lacks have nothing to switch."""
    for setting, value in settings:
        path = Path("/proc/sys/net", setting)
        with contextlib.suppress(FileNotFoundError):
            path.write_text(value)


def furnish_slot(plan: AddressPlan, supernet: IPv4Network, *, namespace: str, port: str, hub: int) -> Slot:
    """Furnish the namespace of this thread for the default policy, leading nowhere yet; blocking, 2 ms.

    Its sockets are kept: closing one of nf_tables waits until the kernel has freed what was replaced, 10 to 15 ms.

    Args:
        port: what the hub calls the other end until then.
        hub: descriptor of the hub's namespace.
    """
    write_settings(FORWARDING)
    with contextlib.ExitStack() as undo:
        nft, route = undo.enter_context(NftSocket()), undo.enter_context(RouteSocket())
        nft.commit(rules.machine_rules(plan, supernet, DEFAULT, {}))
        descriptor = netlink.open_tap(TAP_NAME)
        undo.callback(os.close, descriptor)
        lay_wire(route, plan)
        route.ask(links.add_veth(NET_NAME, port, hub, index=NET_INDEX))
        route.ask(links.change_link(NET_INDEX, up=True))
        port_index = route.link(NET_NAME).peer
        ears = _listen(plan, nft, route)
        undo.pop_all()
    return Slot(namespace=namespace, tap_fd=descriptor, port_index=port_index, ears=ears)


def lay_wire(route: RouteSocket, plan: AddressPlan) -> None:
    """Set up the namespace's end of the wire to the guest."""
    tap = route.link(TAP_NAME).index
    route.ask_all(
        netlink.bring_up(route.link("lo").index),
        netlink.bring_up(tap, mac=plan.gateway_mac),
        netlink.add_address(tap, plan.gateway),
        netlink.add_neighbour(tap, plan.guest.ip, plan.guest_mac),
    )


def open_ears(plan: AddressPlan) -> Ears:
    """Open the sockets of a machine that is there already, on a thread inside its namespace."""
    with contextlib.ExitStack() as undo:
        ears = _listen(plan, undo.enter_context(NftSocket()), undo.enter_context(RouteSocket()))
        undo.pop_all()
    return ears


def connect(slot: Slot, lease: Lease, policy: Policy, table: Sequence[Command]) -> None:
    """Give a slot its rules, its address and its way out; the hub's end is another's to plug in. Blocking, 0.2 ms.

    Args:
        table: the rules of ``policy``, which the default one needs not: a slot has them.
    """
    if policy != DEFAULT:
        slot.ears.nft.commit(table)
    if policy.upload_bytes_per_s is not None:
        bound_rate(slot.ears.route, NET_INDEX, policy.upload_bytes_per_s)
    slot.ears.route.ask_all(
        links.change_link(NET_INDEX, mac=mac_of(lease.address)),
        netlink.add_address(NET_INDEX, IPv4Interface((lease.address, lease.block.prefixlen))),
        links.add_route(EVERYWHERE, gateway=lease.gateway, index=NET_INDEX),
    )


def bound_rate(route: RouteSocket, index: int, bytes_per_s: int | None) -> None:
    """Bound what leaves by a link, or take the bound away.

    Raises:
        OSError: the kernel has no token bucket filter.
    """
    if bytes_per_s is None:
        with contextlib.suppress(OSError):  # there was none
            route.ask(links.unlimit_rate(index))
        return
    burst = max(SHORTEST_BURST_BYTES, bytes_per_s // 50)
    route.ask(links.limit_rate(index, bytes_per_s, burst, max(4 * SHORTEST_BURST_BYTES, bytes_per_s // 10)))


def bound_upload(ears: Ears, policy: Policy) -> None:
    """Bound what leaves the machine's namespace for its bridge."""
    bound_rate(ears.route, NET_INDEX, policy.upload_bytes_per_s)


def _listen(plan: AddressPlan, nft: NftSocket, route: RouteSocket) -> Ears:
    here = (str(plan.gateway.ip), DNS)
    with contextlib.ExitStack() as undo:
        events = LogSocket(DENIED_GROUP, SEEN_GROUP)
        undo.callback(events.close)
        datagrams = undo.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        streams = undo.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
        streams.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        for each in (datagrams, streams):
            each.setblocking(False)
            each.bind(here)
        streams.listen(LISTEN_BACKLOG)
        undo.pop_all()
    return Ears(nft=nft, route=route, events=events, datagrams=datagrams, streams=streams)
