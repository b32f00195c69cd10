"""The hub's way to the world: one pair of links to the host, with a network of its own and one table on the host.

The hub hides its sandboxes behind its own address: neither the host nor anybody beyond it has a route to one of them.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv4Network
from pathlib import Path
from typing import TypeVar

import structlog

from hearth.errors import HostUnfit
from hearth.host import links, namespaces, netlink, nft
from hearth.host.netlink import RouteSocket
from hearth.host.nft_socket import NftSocket
from hearth.host.threads import on_own_thread
from hearth.network import rules
from hearth.network.slot import EVERYWHERE, write_settings

log = structlog.get_logger(__name__)

T = TypeVar("T")

HUB_END = "up0"
RANGE = IPv4Network("198.18.0.0/15")
"""Reserved for benchmarks (RFC 2544), so nothing on a host's networks should have them."""
LINK_PREFIX = 30


@dataclass(frozen=True, kw_only=True)
class Uplink:
    """Where the hub is linked to the world.

    Args:
        link: the host's end, which is also the name of our table there.
        network: of the two ends, four addresses.
        namespace: the name of the namespace that plays the host; None for the daemon's own.
    """

    link: str
    network: IPv4Network
    namespace: str | None = None

    @property
    def host_end(self) -> IPv4Interface:
        return IPv4Interface((self.network.network_address + 1, self.network.prefixlen))

    @property
    def hub_end(self) -> IPv4Interface:
        return IPv4Interface((self.network.network_address + 2, self.network.prefixlen))


def uplink_network(tag: str) -> IPv4Network:
    """Tell which network a daemon's uplink has unless told otherwise: one of 32 768, by its tag."""
    count = 1 << (LINK_PREFIX - RANGE.prefixlen)
    place = zlib.crc32(tag.encode()) % count
    return IPv4Network((int(RANGE.network_address) + place * 4, LINK_PREFIX))


async def on_host(uplink: Uplink, work: Callable[[], T]) -> T:
    """Run blocking work in the namespace that is the host to this uplink."""

    def inside() -> T:
        if uplink.namespace is not None:
            namespaces.enter_now(uplink.namespace)
        return work()

    return await on_own_thread(f"host of {uplink.link}", inside)


def connect_host(uplink: Uplink, hub: int) -> list[IPv4Network]:
    """Make the host's end what it should be, whatever is there; gives the host's own addresses. Blocking.

    Args:
        hub: descriptor of the hub's namespace.

    Raises:
        HostUnfit: the uplink's network is in use on this host.
    """
    with RouteSocket() as route, NftSocket() as firewall:
        _check_free(route, uplink)
        firewall.commit(rules.host_rules(uplink.link, uplink.link, uplink.network))
        with tolerating(errno.EEXIST):
            route.ask(links.add_veth(uplink.link, HUB_END, hub))
        own = route.link(uplink.link).index
        with tolerating(errno.EEXIST):
            route.ask(netlink.add_address(own, uplink.host_end))
        scope = f"conf/{uplink.link}"
        write_settings(
            (
                (f"ipv6/{scope}/disable_ipv6", "1"),
                (f"ipv4/{scope}/rp_filter", "1"),
                (f"ipv4/{scope}/arp_ignore", "1"),
                (f"ipv4/{scope}/accept_redirects", "0"),
                (f"ipv4/{scope}/send_redirects", "0"),
                (f"ipv4/{scope}/forwarding", "1"),
            )
        )
        route.ask(links.change_link(own, up=True))
        _forward_back(route)
        return [IPv4Network(each.ip) for each in route.addresses()]


def check_host(uplink: Uplink) -> None:
    """Look whether the host has room for the uplink, and change nothing. Blocking.

    Raises:
        HostUnfit: the uplink's network is in use on this host.
    """
    with RouteSocket() as route:
        _check_free(route, uplink)


def connect_hub(uplink: Uplink) -> None:
    """Make the hub's end what it should be, on a thread in the hub; blocking."""
    with RouteSocket() as route:
        own = route.link(HUB_END).index
        with tolerating(errno.EEXIST):
            route.ask(netlink.add_address(own, uplink.hub_end))
        route.ask(links.change_link(own, up=True))
        with tolerating(errno.EEXIST):
            route.ask(links.add_route(EVERYWHERE, gateway=uplink.host_end.ip, index=own))


def disconnect_host(uplink: Uplink) -> None:
    """Remove what is ours on the host; nothing there is fine. Blocking."""
    with RouteSocket() as route, NftSocket() as firewall:
        with tolerating(errno.ENODEV):
            route.ask(links.delete_link(route.link(uplink.link).index))
        with tolerating(errno.ENOENT):
            firewall.commit([nft.delete_table(uplink.link)])


def host_addresses() -> list[IPv4Network]:
    """Tell the addresses of this thread's namespace; blocking."""
    with RouteSocket() as route:
        return [IPv4Network(each.ip) for each in route.addresses()]


@contextlib.contextmanager
def tolerating(*codes: int) -> Iterator[None]:
    """Take a refusal of the kernel with one of these codes for success."""
    try:
        yield
    except OSError as error:
        if error.errno not in codes:
            raise


def _check_free(route: RouteSocket, uplink: Uplink) -> None:
    taken = [each for each in route.addresses() if each.network.overlaps(uplink.network)]
    if any(each != uplink.host_end for each in taken):
        raise HostUnfit(
            "the network between hearth and this host is in use",
            details=f"{uplink.network} overlaps {', '.join(map(str, taken))}",
            resolution="configure another network of four addresses for the uplink",
        )


def default_links(route: RouteSocket) -> list[str]:
    """Name the links of the default routes of this thread's namespace; blocking."""
    return [socket.if_indextoname(index) for index in route.default_links()]


def _forward_back(route: RouteSocket) -> None:
    """Let answers of the world come back through the links that lead there.

    Not ip_forward, which would change every link of the host and more besides (ip-sysctl.rst).
    """
    for name in default_links(route):
        setting = Path("/proc/sys/net/ipv4/conf", name, "forwarding")
        if setting.read_text().strip() == "0":
            log.warning("the host forwards packets that arrive on this link from now on", link=name)
            setting.write_text("1")
