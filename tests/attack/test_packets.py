"""Packets by the bytes that others write, and back."""

from __future__ import annotations

import socket

import pytest

from hearth.attack.guest import packets as p
from hearth.attack.guest.calls import question
from hearth.network import dns

MAC, GATEWAY_MAC = bytes.fromhex("026865610002"), bytes.fromhex("026865610001")


def framed(packet: bytes) -> bytes:
    return p.ethernet(GATEWAY_MAC, MAC, p.IPV4, packet)


def test_the_checksum_is_that_of_a_known_header() -> None:
    # A header whose checksum, b861, is written out in many places (Wikipedia, IPv4 header checksum).
    header = bytes.fromhex("450000730000400040110000c0a80001c0a800c7")
    assert p.checksum(header) == 0xB861
    assert p.checksum(b"\1") == p.checksum(b"\1\0")


@pytest.mark.parametrize("options", [b"", bytes(8)])
def test_a_packet_checks_and_reads_back(options: bytes) -> None:
    packet = p.ipv4("172.16.0.2", "100.64.0.3", socket.IPPROTO_UDP, p.udp(4000, 53, b"x"), options=options)
    assert p.checksum(packet[: 20 + len(options)]) == 0
    seen = p.read_frame(framed(packet))
    assert (seen.source, seen.destination, seen.protocol) == ("172.16.0.2", "100.64.0.3", socket.IPPROTO_UDP)
    assert (seen.source_port, seen.destination_port) == (4000, 53)


def test_a_syn_is_one_even_when_it_is_cut() -> None:
    segment = p.tcp_syn("172.16.0.2", "100.64.0.3", 4001, 1024)
    whole = p.read_frame(framed(p.ipv4("172.16.0.2", "100.64.0.3", socket.IPPROTO_TCP, segment)))
    assert (whole.destination_port, whole.tcp_flags) == (1024, p.SYN)
    first = p.read_frame(framed(p.ipv4("172.16.0.2", "100.64.0.3", socket.IPPROTO_TCP, segment[:8], more=True)))
    assert (first.destination_port, first.tcp_flags) == (1024, 0)
    later = p.read_frame(framed(p.ipv4("172.16.0.2", "100.64.0.3", socket.IPPROTO_TCP, segment[8:16], offset=8)))
    assert (later.protocol, later.destination_port) == (socket.IPPROTO_TCP, 0)


@pytest.mark.parametrize(("kind", "is_refusal"), [(3, True), (11, True), (12, True), (0, False), (5, False)])
def test_an_icmp_error_is_a_refusal(kind: int, is_refusal: bool) -> None:
    message = p.icmp(kind, b"quoted")
    assert p.checksum(message) == 0
    seen = p.read_frame(framed(p.ipv4("172.16.0.1", "172.16.0.2", socket.IPPROTO_ICMP, message)))
    assert seen.is_refusal is is_refusal


def test_marks_are_found_wherever_they_are_and_only_those_of_the_run() -> None:
    data = b"\0" * 50 + p.mark("0123abcd", "vlan-double") + p.mark("ffffffff", "other") + b"rest"
    assert p.marks_in(data, "0123abcd") == {"vlan-double"}
    assert p.marks_in(data[:60], "0123abcd") == set()


@pytest.mark.parametrize("size", [0, 1, 13, 14, 20, 33, 34, 37])
def test_what_is_cut_short_is_read_as_far_as_it_goes(size: int) -> None:
    packet = framed(p.ipv4("172.16.0.2", "100.64.0.3", socket.IPPROTO_TCP, p.tcp_syn("1.2.3.4", "4.3.2.1", 1, 2)))
    assert p.read_frame(packet[:size]).destination_port == 0


def test_hearths_own_resolver_reads_the_questions() -> None:
    asked = dns.parse_question(question("long.name.example", 16))
    assert (asked.name, asked.kind) == ("long.name.example", 16)


def test_icmpv6_checks_with_its_pseudo_header() -> None:
    packet = p.icmpv6("fe80::1", "ff02::1", 135, bytes(20))
    pseudo = packet[8:40] + len(packet[40:]).to_bytes(4, "big") + (58).to_bytes(4, "big")
    assert p.checksum(pseudo + packet[40:]) == 0
