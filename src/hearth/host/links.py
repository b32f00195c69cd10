"""Requests of rtnetlink(7) that make links, join them and bound their rate: pure values for ``netlink.RouteSocket``."""

from __future__ import annotations

import socket
import struct
from ipaddress import IPv4Address, IPv4Network

from hearth.host.netlink import (
    IFF_UP,
    IFLA_ADDRESS,
    IFLA_IFALIAS,
    IFLA_IFNAME,
    IFLA_MASTER,
    LINK,
    NLM_F_CREATE,
    NLM_F_EXCL,
    NLM_F_REPLACE,
    ROUTE,
    RTA_OIF,
    RTM_NEWLINK,
    Request,
    attribute,
    interface_name,
    mac_bytes,
    nested,
)

# linux/rtnetlink.h, linux/if_link.h, linux/veth.h, linux/pkt_sched.h
RTM_DELLINK = 17
RTM_NEWROUTE = 24
RTM_NEWQDISC = 36
RTM_DELQDISC = 37
IFLA_LINKINFO = 18
IFLA_NET_NS_FD = 28
IFLA_INFO_KIND = 1
IFLA_INFO_DATA = 2
VETH_INFO_PEER = 1
RTA_DST = 1
RTA_GATEWAY = 5
RT_TABLE_MAIN = 254
RTPROT_STATIC = 4
RT_SCOPE_UNIVERSE = 0
RT_SCOPE_LINK = 253
RTN_UNICAST = 1
TCA_KIND = 1
TCA_OPTIONS = 2
TCA_TBF_PARMS = 1
TCA_TBF_RATE64 = 4
TCA_TBF_BURST = 6
TC_ROOT = 0xFFFFFFFF
QDISC = struct.Struct("=BxxxiIII")
RATE = struct.Struct("=BBHhHI")
TBF = struct.Struct("=12s12sIII")


def add_veth(name: str, peer: str, peer_namespace: int, *, index: int = 0) -> Request:
    """Ask for a pair of links: ``name`` here, numbered ``index``, and ``peer`` in the namespace of a descriptor.

    Both ends should have different numbers: where they are the same by chance the kernel takes its time, up to 1 s, to
    notice that a link has come up (linkwatch_urgent_event, net/core/link_watch.c).
    """
    end = attribute(IFLA_IFNAME, interface_name(peer)) + attribute(IFLA_NET_NS_FD, struct.pack("=I", peer_namespace))
    data = nested(VETH_INFO_PEER, LINK.pack(socket.AF_UNSPEC, 0, 0, 0, 0) + end)
    return _add_link(name, "veth", data, index=index)


def add_bridge(name: str, *, mac: str) -> Request:
    """Ask for a bridge. Its MAC address is given, or it would change with every port that joins."""
    return _add_link(name, "bridge", b"", mac=mac)


def delete_link(index: int) -> Request:
    """Ask for a link to be removed; the other end of a pair goes with it."""
    return Request(kind=RTM_DELLINK, flags=0, body=LINK.pack(socket.AF_UNSPEC, 0, index, 0, 0))


def change_link(
    index: int,
    *,
    name: str | None = None,
    mac: str | None = None,
    master: int | None = None,
    alias: str | None = None,
    up: bool | None = None,
) -> Request:
    """Ask for changes of a link, all at once; a link that is up cannot be renamed (Linux < 6.2)."""
    fields = b""
    if name is not None:
        fields += attribute(IFLA_IFNAME, interface_name(name))
    if mac is not None:
        fields += attribute(IFLA_ADDRESS, mac_bytes(mac))
    if master is not None:
        fields += attribute(IFLA_MASTER, struct.pack("=I", master))
    if alias is not None:
        fields += attribute(IFLA_IFALIAS, alias.encode() + b"\0")
    flags, change = (0, 0) if up is None else (IFF_UP if up else 0, IFF_UP)
    return Request(kind=RTM_NEWLINK, flags=0, body=LINK.pack(socket.AF_UNSPEC, 0, index, flags, change) + fields)


def add_route(network: IPv4Network, *, gateway: IPv4Address | None = None, index: int) -> Request:
    """Ask for a route by a link, through ``gateway`` or, without one, to hosts on the link itself."""
    scope = RT_SCOPE_LINK if gateway is None else RT_SCOPE_UNIVERSE
    head = ROUTE.pack(socket.AF_INET, network.prefixlen, 0, 0, RT_TABLE_MAIN, RTPROT_STATIC, scope, RTN_UNICAST, 0)
    fields = attribute(RTA_OIF, struct.pack("=i", index))
    if network.prefixlen:
        fields += attribute(RTA_DST, network.network_address.packed)
    if gateway is not None:
        fields += attribute(RTA_GATEWAY, gateway.packed)
    return Request(kind=RTM_NEWROUTE, flags=NLM_F_CREATE | NLM_F_EXCL, body=head + fields)


def limit_rate(index: int, bytes_per_s: int, burst_bytes: int, queue_bytes: int) -> Request:
    """Ask for a token bucket at a link's way out (tc-tbf(8)), replacing what was there.

    Args:
        burst_bytes: may leave at once; no packet larger than this ever leaves.
        queue_bytes: may wait; what does not fit is dropped, which is what makes TCP slow down.
    """
    clamped = min(bytes_per_s, 0xFFFFFFFF)
    # 15.625 ticks of the kernel's packet scheduler make a microsecond (psched: 64 ns each).
    ticks = min(0xFFFFFFFF, int(burst_bytes / bytes_per_s * 1e6 * 15.625))
    rate = RATE.pack(0, 1, 0, 0, 0, clamped)
    options = attribute(TCA_TBF_PARMS, TBF.pack(rate, bytes(12), queue_bytes, ticks, 0))
    options += attribute(TCA_TBF_BURST, struct.pack("=I", burst_bytes))
    if bytes_per_s > clamped:
        options += attribute(TCA_TBF_RATE64, struct.pack("=Q", bytes_per_s))
    body = QDISC.pack(socket.AF_UNSPEC, index, 0, TC_ROOT, 0) + attribute(TCA_KIND, b"tbf\0")
    return Request(kind=RTM_NEWQDISC, flags=NLM_F_CREATE | NLM_F_REPLACE, body=body + nested(TCA_OPTIONS, options))


def unlimit_rate(index: int) -> Request:
    """Ask for ``limit_rate`` to be undone; ENOENT or EINVAL when it never was."""
    return Request(kind=RTM_DELQDISC, flags=0, body=QDISC.pack(socket.AF_UNSPEC, index, 0, TC_ROOT, 0))


def _add_link(name: str, kind: str, data: bytes, *, index: int = 0, mac: str | None = None) -> Request:
    fields = attribute(IFLA_IFNAME, interface_name(name))
    if mac is not None:
        fields += attribute(IFLA_ADDRESS, mac_bytes(mac))
    information = attribute(IFLA_INFO_KIND, kind.encode()) + (nested(IFLA_INFO_DATA, data) if data else b"")
    body = LINK.pack(socket.AF_UNSPEC, 0, index, 0, 0) + fields + nested(IFLA_LINKINFO, information)
    return Request(kind=RTM_NEWLINK, flags=NLM_F_CREATE | NLM_F_EXCL, body=body)
