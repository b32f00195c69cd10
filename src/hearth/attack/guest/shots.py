"""Probes below the socket: frames as no honest driver would send them, put on the wire by a packet socket."""

from __future__ import annotations

import contextlib
import fcntl
import socket
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from hearth.attack.guest import packets as p
from hearth.attack.guest.report import outcome

EVERY_PROTOCOL = 3
LINK = "eth0"
SIOCSIFMTU = 0x8922
USUAL_MTU = 1500
LISTEN_S = 0.3
"""Where no answer is to come; where one is, the probe says how long it is worth."""
TINY_PORT = 4001
TIMES = 3
"""Each frame is sent so often: one alone may be lost on a loaded host."""
ALL_NODES = "ff02::1"
STRANGE_MAC = bytes.fromhex("020000000099")
TCP, UDP = socket.IPPROTO_TCP, socket.IPPROTO_UDP


class Wire(NamedTuple):
    """What a guest knows of its link."""

    mac: bytes
    gateway_mac: bytes
    own: str
    gateway: str


class Shot(NamedTuple):
    """Frames to send, and what in an incoming frame would be an answer to them."""

    frames: list[bytes]
    is_answer: Callable[[bytes, p.Seen], bool] = lambda _frame, _seen: False
    is_refused: Callable[[p.Seen], bool] = lambda _seen: False


def wire_of(gateway: str) -> Wire:
    """Read them from the kernel; the gateway is called first, so that its MAC address is known.

    Raises:
        OSError: there is no such link, or nobody behind it.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
        made.connect((gateway, 53))
        own = made.getsockname()[0]
        made.send(b"")
    mac = Path(f"/sys/class/net/{LINK}/address").read_text().strip()
    deadline = time.monotonic() + 10.0
    while time.monotonic() < deadline:
        for line in Path("/proc/net/arp").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[0] == gateway and fields[3] != "00:00:00:00:00:00":
                return Wire(_bytes(mac), _bytes(fields[3]), own, gateway)
        time.sleep(0.05)
    raise TimeoutError(f"{gateway} has no MAC address")


def _bytes(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


def _sent_ip(wire: Wire, packet: bytes, *, sender: bytes | None = None) -> bytes:
    return p.ethernet(wire.gateway_mac, sender or wire.mac, p.IPV4, packet)


def _datagram(wire: Wire, how: dict[str, Any], marked: bytes) -> Shot:
    """A datagram, honest but for what ``how`` says otherwise."""
    packet = p.ipv4(how.get("source", wire.own), how["address"], UDP, p.udp(4000, how.get("port", 9), marked))
    sender = STRANGE_MAC if how.get("strange_mac") else None
    return Shot([_sent_ip(wire, packet, sender=sender)], lambda _, seen: _comes_from(seen, how["address"]))


def _comes_from(seen: p.Seen, address: str) -> bool:
    return seen.source == address and not seen.is_refusal and not seen.tcp_flags & p.RST


def _tagged(wire: Wire, how: dict[str, Any], marked: bytes) -> Shot:
    packet = p.ipv4(wire.own, how["address"], UDP, p.udp(4000, 9, marked))
    inner = p.vlan(how["vlan"], p.IPV4, packet)
    if how.get("outer"):
        outer = p.vlan(how["outer"], p.VLAN, inner)
        return Shot([p.ethernet(wire.gateway_mac, wire.mac, p.VLAN_OUTER, outer)])
    return Shot([p.ethernet(wire.gateway_mac, wire.mac, p.VLAN, inner)])


def _fragments(wire: Wire, how: dict[str, Any], marked: bytes) -> Shot:
    """A datagram cut in two, its mark in either piece."""
    body = p.udp(4000, how.get("port", 9), marked.ljust(72, b"-") + marked.ljust(80, b"-"))
    cut = 80
    pieces = [(body[:cut], 0, True), (body[cut:], cut, False)]
    frames = [
        _sent_ip(wire, p.ipv4(wire.own, how["address"], UDP, data, offset=offset, more=more))
        for data, offset, more in pieces
    ]
    return Shot(frames)


def _tiny_fragments(wire: Wire, how: dict[str, Any], _marked: bytes) -> Shot:
    """A SYN whose ports come in eight bytes and whose flags come later (RFC 1858)."""
    segment = p.tcp_syn(wire.own, how["address"], TINY_PORT, how["port"])
    frames = [
        _sent_ip(wire, p.ipv4(wire.own, how["address"], TCP, segment[at : at + 8], offset=at, more=at + 8 < 40))
        for at in range(0, 40, 8)
    ]
    wanted = p.SYN | p.ACK
    return Shot(
        frames,
        lambda _, seen: _is_reply(seen, how["port"]) and seen.tcp_flags & wanted == wanted,
        lambda seen: _is_reply(seen, how["port"]) and bool(seen.tcp_flags & p.RST),
    )


def _is_reply(seen: p.Seen, port: int) -> bool:
    return (seen.source_port, seen.destination_port) == (port, TINY_PORT)


def _other_protocol(wire: Wire, how: dict[str, Any], marked: bytes) -> Shot:
    """Packets inside packets, and transports that nobody tracks."""
    inner = p.ipv4(wire.own, how["address"], UDP, p.udp(4000, 9, marked))
    frames = [_sent_ip(wire, p.ipv4(wire.own, how["address"], number, inner)) for number in how["protocols"]]
    return Shot(frames, lambda _, seen: _comes_from(seen, how["address"]))


def _source_routed(wire: Wire, how: dict[str, Any], marked: bytes) -> Shot:
    route = struct.pack("BBB", p.LOOSE_SOURCE_ROUTE, 7, 4) + socket.inet_aton(how["beyond"]) + b"\0"
    packet = p.ipv4(wire.own, how["address"], UDP, p.udp(4000, 9, marked), options=route)
    return Shot([_sent_ip(wire, packet)])


def _redirect(wire: Wire, how: dict[str, Any], marked: bytes) -> Shot:
    """Tell the gateway that this guest is the way to another address (RFC 792, redirect)."""
    quoted = p.ipv4(wire.gateway, how["address"], UDP, p.udp(4000, 9, marked))
    message = p.icmp(5, quoted, code=1, rest=socket.inet_aton(wire.own))
    return Shot([_sent_ip(wire, p.ipv4(wire.own, wire.gateway, socket.IPPROTO_ICMP, message))])


def _arp_claim(wire: Wire, how: dict[str, Any], marked: bytes) -> Shot:
    claim = p.arp(2, wire.mac, how["address"], p.BROADCAST, how["address"])
    return Shot([p.ethernet(p.BROADCAST, wire.mac, p.ARP, claim + marked)])


def _arp_ask(wire: Wire, how: dict[str, Any], marked: bytes) -> Shot:
    asks = p.arp(1, wire.mac, wire.own, bytes(6), how["address"])
    told = socket.inet_aton(how["address"])
    return Shot(
        [p.ethernet(p.BROADCAST, wire.mac, p.ARP, asks + marked)],
        lambda frame, seen: seen.ethertype == p.ARP and frame[20:22] == b"\0\2" and frame[28:32] == told,
    )


def _dhcp(wire: Wire, _how: dict[str, Any], marked: bytes) -> Shot:
    frame = p.ethernet(p.BROADCAST, wire.mac, p.IPV4, p.dhcp_discover(wire.mac) + marked)
    return Shot([frame], lambda _, seen: seen.protocol == UDP and seen.source_port == 67)


def _ipv6(wire: Wire, how: dict[str, Any], marked: bytes) -> Shot:
    """What a host says in IPv6 where it is on: to everybody, to routers, as a router, to an address."""
    here, kind = "fe80::68:65ff:fe61:2", how["message"]
    if kind == "advert":
        prefix = struct.pack(">BBBBIII", 3, 4, 64, 0xC0, 3600, 3600, 0) + socket.inet_pton(socket.AF_INET6, "fd00:66::")
        packet = p.icmpv6(here, ALL_NODES, 134, struct.pack(">BBHII", 64, 0, 1800, 0, 0) + prefix + marked)
    elif kind == "solicit":
        packet = p.icmpv6(here, "ff02::2", 133, bytes(4) + marked)
    elif kind == "neighbour":
        packet = p.icmpv6(here, ALL_NODES, 135, bytes(4) + socket.inet_pton(socket.AF_INET6, how["address"]) + marked)
    else:
        packet = p.ipv6(how.get("source", here), how["address"], UDP, p.udp(4000, 9, marked))
    group = b"\x33\x33\0\0\0\1" if how.get("address", "ff").startswith("ff") or kind != "datagram" else None
    frame = p.ethernet(group or wire.gateway_mac, wire.mac, p.IPV6, packet)
    return Shot([frame], lambda _, seen: seen.ethertype == p.IPV6)


def _oversize(wire: Wire, how: dict[str, Any], marked: bytes) -> Shot:
    body = marked.ljust(how["bytes"], b"-")
    return Shot([_sent_ip(wire, p.ipv4(wire.own, how["address"], UDP, p.udp(4000, 9, body)))])


def _lying(wire: Wire, how: dict[str, Any], marked: bytes) -> Shot:
    """Frames that are cut short, or whose headers promise more or less than there is."""
    honest = p.ipv4(wire.own, how["address"], UDP, p.udp(4000, 9, marked))
    longer = honest[:2] + struct.pack(">H", 65_535) + honest[4:]
    bent = bytes([0x4F]) + honest[1:]
    not_ip = bytes([0x95]) + honest[1:]
    cut = [honest[:1], honest[:19], honest[:27]]
    return Shot([_sent_ip(wire, each) for each in (longer, bent, not_ip, *cut)])


SHOTS: dict[str, Callable[[Wire, dict[str, Any], bytes], Shot]] = {
    "datagram": _datagram,
    "tagged": _tagged,
    "fragments": _fragments,
    "tiny fragments": _tiny_fragments,
    "other protocol": _other_protocol,
    "source routed": _source_routed,
    "redirect": _redirect,
    "arp claim": _arp_claim,
    "arp ask": _arp_ask,
    "dhcp": _dhcp,
    "ipv6": _ipv6,
    "oversize": _oversize,
    "lying": _lying,
}


def shoot(run: str, probe: str, how: dict[str, Any]) -> None:
    """Send a shot's frames and tell how many left, and whether anything answered."""
    try:
        wire = wire_of(how["gateway"])
        shot = SHOTS[how["shot"]](wire, how, p.mark(run, probe))
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(EVERY_PROTOCOL)) as made:
            made.bind((LINK, EVERY_PROTOCOL))
            with _mtu(max(map(len, shot.frames)) > USUAL_MTU + p.ETHERNET_BYTES):
                _send_and_listen(made, probe, shot, how.get("listen_s", LISTEN_S))
    except OSError as error:
        outcome(probe, "could not", str(error))


def _send_and_listen(made: socket.socket, probe: str, shot: Shot, listen_s: float) -> None:
    sent = 0
    for _ in range(TIMES):
        for frame in shot.frames:
            made.send(frame)
            sent += 1
    deadline = time.monotonic() + listen_s
    while (left_s := deadline - time.monotonic()) > 0:
        made.settimeout(left_s)
        with contextlib.suppress(TimeoutError):
            frame, sender = made.recvfrom(65_535)
            seen = p.read_frame(frame)
            if sender[2] == socket.PACKET_OUTGOING:
                continue
            if shot.is_answer(frame, seen):
                outcome(probe, "answered", f"{len(frame)} bytes came back", sent=sent)
                return
            if shot.is_refused(seen):
                outcome(probe, "refused", "it was reset", sent=sent)
                return
    outcome(probe, "sent", f"{sent} frames", sent=sent)


@contextlib.contextmanager
def _mtu(is_large: bool) -> Any:
    if not is_large:
        yield
        return
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
        fcntl.ioctl(made, SIOCSIFMTU, struct.pack("16si12x", LINK.encode(), 65_535))
        try:
            yield
        finally:
            fcntl.ioctl(made, SIOCSIFMTU, struct.pack("16si12x", LINK.encode(), USUAL_MTU))
