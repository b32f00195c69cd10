"""Packets as bytes: built for probes, and read by whoever watches them pass; pure, and of the standard library alone.

Every payload bears a mark that names the run and the probe, so that whoever sees it knows what it is looking at.
"""

from __future__ import annotations

import re
import socket
import struct
from typing import NamedTuple

MARKED = re.compile(rb"hearth-attack:([0-9a-f]{8}):([a-z0-9-]{1,60});")
IPV4, ARP, IPV6, VLAN, VLAN_OUTER = 0x0800, 0x0806, 0x86DD, 0x8100, 0x88A8
BROADCAST = b"\xff" * 6
ETHERNET_BYTES = 14
SYN, RST, ACK = 0x02, 0x04, 0x10
UNREACHABLE, TOO_OLD, BAD_HEADER = 3, 11, 12
ICMP_ERRORS = (UNREACHABLE, TOO_OLD, BAD_HEADER)
"""ICMP messages that quote what they refuse (RFC 792)."""
LOOSE_SOURCE_ROUTE = 131
DHCP_COOKIE = b"\x63\x82\x53\x63"


class Seen(NamedTuple):
    """What a frame says of itself; ports and type are 0 where there are none."""

    ethertype: int
    source: str = ""
    destination: str = ""
    protocol: int = 0
    source_port: int = 0
    destination_port: int = 0
    tcp_flags: int = 0
    icmp_type: int = -1

    @property
    def is_refusal(self) -> bool:
        """True of an ICMP error: what it bears is the quotation of something refused."""
        return self.protocol == socket.IPPROTO_ICMP and self.icmp_type in ICMP_ERRORS


def mark(run: str, probe: str) -> bytes:
    """Give the bytes that name a probe of a run."""
    return f"hearth-attack:{run}:{probe};".encode()


def marks_in(data: bytes, run: str) -> set[str]:
    """Tell which probes of a run left their mark in some bytes."""
    return {found[2].decode() for found in MARKED.finditer(data) if found[1] == run.encode()}


def checksum(data: bytes) -> int:
    """Give the Internet checksum (RFC 1071)."""
    padded = data + b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f">{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ethernet(destination: bytes, source: bytes, ethertype: int, payload: bytes) -> bytes:
    return destination + source + struct.pack(">H", ethertype) + payload


def vlan(identity: int, ethertype: int, payload: bytes) -> bytes:
    """Give what follows the tag's own type in a frame (IEEE 802.1Q)."""
    return struct.pack(">HH", identity, ethertype) + payload


def ipv4(
    source: str,
    destination: str,
    protocol: int,
    payload: bytes,
    *,
    offset: int = 0,
    more: bool = False,
    options: bytes = b"",
) -> bytes:
    """Write an IPv4 packet; ``offset`` in bytes, a multiple of 8, of a fragment (RFC 791)."""
    size = 20 + len(options)
    head = struct.pack(
        ">BBHHHBBH4s4s",
        0x40 | size // 4,
        0,
        size + len(payload),
        0x6865,
        (0x2000 if more else 0) | offset // 8,
        64,
        protocol,
        0,
        socket.inet_aton(source),
        socket.inet_aton(destination),
    )
    head += options
    return head[:10] + struct.pack(">H", checksum(head)) + head[12:] + payload


def udp(source_port: int, destination_port: int, payload: bytes) -> bytes:
    """Write a datagram without a checksum, which IPv4 allows."""
    return struct.pack(">HHHH", source_port, destination_port, 8 + len(payload), 0) + payload


def tcp_syn(source: str, destination: str, source_port: int, destination_port: int) -> bytes:
    """Write a TCP segment that opens a connection, 40 bytes of options long so that it can be cut in small pieces."""
    size = 20 + 20
    head = struct.pack(">HHIIBBHHH", source_port, destination_port, 7, 0, (size // 4) << 4, SYN, 64240, 0, 0)
    segment = head + b"\x01" * 20
    pseudo = socket.inet_aton(source) + socket.inet_aton(destination) + struct.pack(">BBH", 0, 6, len(segment))
    return segment[:16] + struct.pack(">H", checksum(pseudo + segment)) + segment[18:]


def icmp(kind: int, payload: bytes, *, code: int = 0, rest: bytes = b"\0\0\0\0") -> bytes:
    message = struct.pack(">BBH", kind, code, 0) + rest + payload
    return message[:2] + struct.pack(">H", checksum(message)) + message[4:]


def ipv6(source: str, destination: str, following: int, payload: bytes) -> bytes:
    ends = socket.inet_pton(socket.AF_INET6, source) + socket.inet_pton(socket.AF_INET6, destination)
    return struct.pack(">IHBB", 6 << 28, len(payload), following, 255) + ends + payload


def icmpv6(source: str, destination: str, kind: int, payload: bytes) -> bytes:
    """Write an ICMPv6 message with its pseudo header's checksum (RFC 4443)."""
    message = struct.pack(">BBH", kind, 0, 0) + payload
    ends = socket.inet_pton(socket.AF_INET6, source) + socket.inet_pton(socket.AF_INET6, destination)
    total = checksum(ends + struct.pack(">II", len(message), socket.IPPROTO_ICMPV6) + message)
    return ipv6(source, destination, socket.IPPROTO_ICMPV6, message[:2] + struct.pack(">H", total) + message[4:])


def arp(operation: int, mac: bytes, address: str, target_mac: bytes, target: str) -> bytes:
    """Write an ARP message (RFC 826); 1 asks, 2 tells."""
    head = struct.pack(">HHBBH", 1, IPV4, 6, 4, operation)
    return head + mac + socket.inet_aton(address) + target_mac + socket.inet_aton(target)


def dhcp_discover(mac: bytes) -> bytes:
    """Write a DHCP DISCOVER with its UDP and IP headers (RFC 2131)."""
    head = struct.pack(">BBBBIHH", 1, 1, 6, 0, 0x68656172, 0, 0x8000) + bytes(16) + mac + bytes(10 + 192)
    return ipv4("0.0.0.0", "255.255.255.255", socket.IPPROTO_UDP, udp(68, 67, head + DHCP_COOKIE + b"\x35\x01\x01\xff"))  # noqa: S104 - the address a client has before it has one


def read_frame(frame: bytes) -> Seen:
    """Tell what an Ethernet frame is, as far as it can be read."""
    if len(frame) < ETHERNET_BYTES:
        return Seen(0)
    (ethertype,) = struct.unpack_from(">H", frame, 12)
    packet = frame[ETHERNET_BYTES:]
    if ethertype != IPV4 or len(packet) < 20:
        return Seen(ethertype)
    size = (packet[0] & 0xF) * 4
    source, destination = socket.inet_ntoa(packet[12:16]), socket.inet_ntoa(packet[16:20])
    known = Seen(ethertype, source, destination, packet[9])
    is_first = not struct.unpack_from(">H", packet, 6)[0] & 0x1FFF
    rest = packet[size:]
    if not is_first or len(rest) < 4:
        return known
    if known.protocol == socket.IPPROTO_ICMP:
        return known._replace(icmp_type=rest[0])
    if known.protocol not in (socket.IPPROTO_TCP, socket.IPPROTO_UDP):
        return known
    here, there = struct.unpack_from(">HH", rest)
    flags = rest[13] if known.protocol == socket.IPPROTO_TCP and len(rest) > 13 else 0
    return known._replace(source_port=here, destination_port=there, tcp_flags=flags)
