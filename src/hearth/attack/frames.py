"""The frames that are tried, for a scene: pure; how they are built stands in ``guest/shots``."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from hearth.attack.model import Expect, Flow, Probe

ABROAD = "9.9.9.9"
ANSWER_S = 20.0
OTHER_PROTOCOLS = (4, 41, 47, 50, 132, 253)
"""IP in IP, IPv6 in IPv4, GRE, ESP, SCTP, and one for experiments (RFC 3692)."""
CONTROL = ("frame-honest",)


class HasGateway(Protocol):
    """A scene, as far as it matters here."""

    @property
    def gateway(self) -> str: ...


def shot(
    identity: str,
    target: str,
    tried: str,
    how: Mapping[str, Any],
    *,
    group: str = "frames",
    expect: Expect = Expect.CONTAINED,
    control: tuple[str, ...] = CONTROL,
    flow: Flow | None = None,
    because: str = "",
) -> Probe:
    """Make a probe of raw frames."""
    return Probe(
        id=identity,
        group=group,
        target=target,
        tried=tried,
        expect=expect,
        do="shoot",
        how=how,
        control=control,
        flow=flow,
        because=because,
    )


def ipv6(identity: str, group: str, target: str, address: str, scene: HasGateway) -> Probe:
    """Make a probe of an IPv6 datagram, sent past the guest's own routes."""
    how = {"gateway": scene.gateway, "shot": "ipv6", "message": "datagram", "address": address}
    return shot(identity, target, "IPv6 datagram", how, group=group)


def loopback(gateway: str) -> Iterator[Probe]:
    """Give frames for loopback addresses, which no system takes from a wire."""
    for address in ("127.0.0.1", "127.0.0.53", "0.0.0.0"):  # noqa: S104 - many systems take it for their own
        how = {"gateway": gateway, "shot": "datagram", "address": address, "port": 53}
        yield shot(
            f"loopback-{address.replace('.', '-')}", f"{address} (loopback)", "a frame for it", how, group="host"
        )


def shots(gateway: str, address: str, friend: str, stranger: str, port: int) -> Iterator[Probe]:
    """Give all others; ``port`` is where the friend's witness listens."""
    wire = {"gateway": gateway}
    honest = {**wire, "shot": "datagram", "address": friend}
    yield shot(
        "frame-honest",
        "a neighbour",
        "an honest frame by hand",
        honest,
        expect=Expect.ALLOWED,
        control=(),
        because="it shows that the others would have been seen",
    )
    yield from _spoofed(wire, address, friend, stranger)
    yield from _link_layer(wire, friend, stranger)
    yield from _fragmented(wire, friend, stranger, port)
    yield from _ipv6(wire)
    yield from _misshapen(wire, friend)


def _spoofed(wire: Mapping[str, Any], address: str, friend: str, stranger: str) -> Iterator[Probe]:
    to_friend = {**wire, "shot": "datagram", "address": friend}
    yield shot("spoofed-mac", "a neighbour", "another's MAC address", {**to_friend, "strange_mac": True})
    sources = {
        "a neighbour": friend,
        "itself, outside": address,
        "the gateway": wire["gateway"],
        "the world": ABROAD,
        "loopback": "127.0.0.1",
        "nobody": "0.0.0.0",  # noqa: S104 - as the sender of a packet
        "multicast": "224.0.0.1",
    }
    for who, source in sources.items():
        identity = f"spoofed-ip-{source.replace('.', '-')}"
        yield shot(identity, "a neighbour", f"IP address of {who}", {**to_friend, "source": source})
    as_friend = {**wire, "shot": "datagram", "address": stranger, "source": friend}
    yield shot("spoofed-stranger", "another owner", "IP address of a neighbour", as_friend)
    route = {**wire, "shot": "source routed", "address": friend, "beyond": stranger or ABROAD}
    yield shot("source-route", "a neighbour", "a loose source route", route)
    redirect = {**wire, "shot": "redirect", "address": friend}
    yield shot("redirect", "the gateway", "an ICMP redirect", redirect)


def _link_layer(wire: Mapping[str, Any], friend: str, stranger: str) -> Iterator[Probe]:
    tagged = {**wire, "shot": "tagged", "address": friend}
    yield shot("vlan", "a neighbour", "a VLAN tag (802.1Q)", {**tagged, "vlan": 1})
    yield shot("vlan-double", "a neighbour", "two VLAN tags (802.1ad)", {**tagged, "vlan": 1, "outer": 2})
    claim, asks = {**wire, "shot": "arp claim"}, {**wire, "shot": "arp ask"}
    yield shot("arp-gateway", "the segment", "ARP: it is the gateway", {**claim, "address": wire["gateway"]})
    yield shot("arp-friend", "the segment", "ARP: it is a neighbour", {**claim, "address": friend})
    yield shot("arp-ask-friend", "the segment", "ARP: who is a neighbour?", {**asks, "address": friend})
    yield shot("arp-ask-stranger", "the segment", "ARP: who is another owner's?", {**asks, "address": stranger})
    yield shot("dhcp", "the segment", "DHCP discover", {**wire, "shot": "dhcp"})
    for address in ("255.255.255.255", "224.0.0.251"):
        how = {**wire, "shot": "datagram", "address": address, "port": 5353}
        yield shot(f"cast-{address.replace('.', '-')}", address, "broadcast, multicast", how)


def _fragmented(wire: Mapping[str, Any], friend: str, stranger: str, port: int) -> Iterator[Probe]:
    pieces = {**wire, "shot": "fragments", "address": stranger}
    yield shot("fragments-stranger", "another owner", "a datagram in fragments", pieces)
    tiny = {**wire, "shot": "tiny fragments", "address": friend, "listen_s": ANSWER_S}
    yield shot(
        "tiny-control",
        "a neighbour",
        "a SYN in tiny fragments",
        {**tiny, "port": port},
        expect=Expect.ALLOWED,
        because="sandboxes of one owner reach each other",
    )
    yield shot(
        "tiny-agent",
        "a neighbour's agent",
        "a SYN in tiny fragments",
        {**tiny, "port": 1024},
        control=("frame-honest", "tiny-control"),
        flow=("tcp", friend, 1024),
    )
    others = {**wire, "shot": "other protocol", "protocols": OTHER_PROTOCOLS}
    yield shot("raw-stranger", "another owner", "IPIP, GRE, ESP, SCTP", {**others, "address": stranger})
    yield shot("raw-private", "10.0.0.1", "IPIP, GRE, ESP, SCTP", {**others, "address": "10.0.0.1"})


def _ipv6(wire: Mapping[str, Any]) -> Iterator[Probe]:
    six = {**wire, "shot": "ipv6"}
    kinds = {
        "advert": ("router advertisement", {}),
        "solicit": ("router solicitation", {}),
        "neighbour": ("neighbour solicitation", {"address": "fe80::1"}),
    }
    for kind, (words, more) in kinds.items():
        yield shot(f"ipv6-{kind}", "everybody", words, {**six, "message": kind, **more}, group="ipv6")
    for target, address in {"all nodes": "ff02::1", "link-local": "fe80::1", "ULA": "fd00::1"}.items():
        how = {**six, "message": "datagram", "address": address}
        yield shot(f"ipv6-{address.replace(':', '-')}", f"{address} ({target})", "a datagram", how, group="ipv6")


def _misshapen(wire: Mapping[str, Any], friend: str) -> Iterator[Probe]:
    to_friend = {**wire, "address": friend}
    survived = functools.partial(shot, expect=Expect.SURVIVED, control=(*CONTROL, "after-frames"))
    for size in (9_000, 60_000):
        how = {**to_friend, "shot": "oversize", "bytes": size}
        yield survived(f"oversize-{size}", "a neighbour", f"a frame of {size} bytes", how)
    yield survived("lying", "a neighbour", "cut frames, lying headers", {**to_friend, "shot": "lying"})
    after = {**to_friend, "shot": "datagram"}
    yield shot(
        "after-frames",
        "a neighbour",
        "an honest frame, afterwards",
        after,
        expect=Expect.ALLOWED,
        control=(),
        because="all is well after the others",
    )
