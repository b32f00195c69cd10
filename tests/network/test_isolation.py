"""Who reaches whom: owners' machines, the host, the world, on namespaces in place of guests."""

from __future__ import annotations

import json
import os
import socket
import struct
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.network.stage import HOST_ADDRESS, INSIDE, PUBLIC, SILENCE_S, Guest, Stage, inside, ip, stage, within

from hearth.host import namespaces
from hearth.network.events import EventKind
from hearth.network.plan import PLAN, hub_name
from hearth.network.policy import PUBLIC as EVERYTHING

pytestmark = pytest.mark.root

ETHERNET_IPV4 = b"\x08\x00"
ETHERNET_IPV6 = b"\x86\xdd"
CLOSED = ("refused", "prohibited", "silence")


@pytest.fixture
async def scene() -> AsyncIterator[Stage]:
    async with stage() as made:
        yield made


def mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def datagram(source: str, destination: str, words: bytes = b"spoof") -> bytes:
    """Write an IPv4 packet with a UDP datagram to port 80; no checksum in UDP, a right one in IPv4."""
    udp = struct.pack(">HHHH", 5000, 80, 8 + len(words), 0) + words
    head = struct.pack(
        ">BBHHHBBH4s4s",
        0x45,
        0,
        20 + len(udp),
        1,
        0,
        64,
        17,
        0,
        socket.inet_aton(source),
        socket.inet_aton(destination),
    )
    total = sum(struct.unpack(">10H", head))
    total = (total & 0xFFFF) + (total >> 16)
    checksum = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
    return head[:10] + struct.pack(">H", checksum) + head[12:] + udp


def frame(packet: bytes, *, sender: str = PLAN.guest_mac, kind: bytes = ETHERNET_IPV4) -> bytes:
    return mac(PLAN.gateway_mac) + mac(sender) + kind + packet


def dropped_by_guard(guest: Guest) -> int:
    """Count what the spoof rules of a machine dropped."""
    return counted(guest.link.namespace, "hearth", "guard")


def turned_away(scene: Stage) -> int:
    """Count what came from outside for a machine and was dropped: on the host's end of the uplink, and in the hub."""
    return counted(scene.host, f"hearth-{scene.tag}", "forward") + counted(hub_name(scene.tag), "hearth", "forward")


def counted(space: str, table: str, chain: str) -> int:
    """Sum the counters of a chain."""
    listing = json.loads(inside(space, "nft", "-j", "list", "chain", "inet", table, chain))
    counters = [
        part["counter"]["packets"]
        for each in listing["nftables"]
        for part in each.get("rule", {}).get("expr", [])
        if "counter" in part
    ]
    return sum(counters)


async def test_machines_of_one_owner_reach_each_other_by_address_and_nobody_reaches_anothers(scene: Stage) -> None:
    one, two = await scene.guest("sb-1"), await scene.guest("sb-2")
    other, fourth = await scene.guest("sb-3", owner="bob"), await scene.guest("sb-4", owner="bob")
    assert await one.dial(two.address) == "sb-2"
    assert await two.dial(one.address) == "sb-1"
    assert await other.dial(fourth.address) == "sb-4"
    assert await one.dial(other.address) == "refused"
    assert await other.dial(two.address) == "refused"
    event = await scene.event(lambda each: each.sandbox_id == "sb-1")
    assert (event.kind, event.rule, str(event.address), event.port, event.protocol) == (
        EventKind.DENIED,
        "owner",
        other.address,
        80,
        "tcp",
    )


async def test_host_private_ranges_and_metadata_are_refused_even_where_the_world_is_open(scene: Stage) -> None:
    guest = await scene.guest("sb-1", policy=EVERYTHING)
    assert await guest.dial(PUBLIC[0]) == f"world {PUBLIC[0]}"
    uplink = scene.settings.uplink
    assert uplink is not None
    host_ends = [HOST_ADDRESS, str(uplink.host_end.ip), str(uplink.hub_end.ip)]
    for address in (*host_ends, "172.16.0.1", guest.address, "0.0.0.1", *INSIDE):
        assert await guest.dial(address) == "refused", address


async def test_the_loopback_of_the_host_is_not_the_guests(scene: Stage) -> None:
    guest = await scene.guest("sb-1", policy=EVERYTHING)
    before = len(guest.frames)
    for destination in ("127.0.0.1", "127.8.8.8"):
        guest.inject(frame(datagram(str(PLAN.guest.ip), destination)))
    assert await guest.dial(PUBLIC[0]) == f"world {PUBLIC[0]}"
    answers = [each for each in guest.frames[before:] if each[12:14] == ETHERNET_IPV4 and each[26:27] == b"\x7f"]
    assert answers == []


async def test_a_host_address_that_came_later_is_refused_as_well(scene: Stage) -> None:
    guest = await scene.guest("sb-1", policy=EVERYTHING)
    ip(scene.host, "addr", "add", "5.5.5.5/32", "dev", "lo")
    assert await guest.dial("5.5.5.5") == "refused"
    await scene.network.fabric.refresh()
    assert await guest.dial("5.5.5.5") == "refused"
    assert (await scene.event(lambda each: str(each.address) == "5.5.5.5")).rule == "host"


async def test_nobody_outside_dials_in(scene: Stage) -> None:
    guest = await scene.guest("sb-1", policy=EVERYTHING)
    uplink = scene.settings.uplink
    assert uplink is not None
    ip(scene.host, "route", "add", "100.64.0.0/10", "via", str(uplink.hub_end.ip))
    ip(scene.world, "route", "add", "100.64.0.0/10", "via", HOST_ADDRESS)
    ip(scene.world, "route", "add", str(uplink.network), "via", HOST_ADDRESS)
    for space in (scene.host, scene.world):
        outsider = Guest(link=guest.link, space=space, tap_fd=-1)
        for address in (guest.address, str(uplink.hub_end.ip)):
            assert await outsider.dial(address, wait_s=SILENCE_S) == "silence", (space, address)
        assert await guest.dial(PUBLIC[0]) == f"world {PUBLIC[0]}", "the way itself is open"
    assert turned_away(scene) >= 2, "they came as far as the rules for it"


async def test_agent_ports_are_reached_by_the_daemon_alone(scene: Stage) -> None:
    one, two = await scene.guest("sb-1"), await scene.guest("sb-2")
    for port in (1024, 1025, 1026):
        await one.serve(port, f"port {port}", scene.stack)
    with await scene.network.dialer("sb-1").connect(1024):
        pass
    assert await two.dial(one.address, 1024) == "refused"
    assert await two.dial(one.address, 1025) == "refused"
    assert await two.dial(one.address, 1026) == "port 1026"
    assert (await scene.event(lambda each: each.rule == "agent")).port == 1024
    for space in (scene.host, hub_name(scene.tag)):
        assert await Guest(link=one.link, space=space, tap_fd=-1).dial(one.address, 1024, wait_s=SILENCE_S) in CLOSED
    assert await two.dial(one.address, 1026) == "port 1026"


async def test_a_process_in_a_machines_namespace_reaches_nobody(scene: Stage) -> None:
    """A VMM that was taken over by its guest runs there, as a user without rights."""
    one, two = await scene.guest("sb-1", policy=EVERYTHING), await scene.guest("sb-2")
    taken_over = Guest(link=one.link, space=one.link.namespace, tap_fd=-1)
    for address in (two.address, PUBLIC[0], HOST_ADDRESS):
        assert await taken_over.dial(address, wait_s=SILENCE_S) == "silence", address
    assert await one.dial(two.address) == "sb-2", "its guest goes the same way"
    assert await one.dial(PUBLIC[0]) == f"world {PUBLIC[0]}"


async def test_a_spoofed_sender_is_dropped(scene: Stage) -> None:
    one, two = await scene.guest("sb-1", policy=EVERYTHING), await scene.guest("sb-2")
    own = str(PLAN.guest.ip)
    attempts = [
        frame(datagram(two.address, two.address)),
        frame(datagram(one.address, two.address)),
        frame(datagram("9.9.9.9", two.address)),
        frame(datagram("127.0.0.1", two.address)),
        frame(datagram(own, two.address), sender="02:00:00:00:00:99"),
    ]
    before = dropped_by_guard(one)
    for attempt in attempts:
        one.inject(attempt)
    honest = frame(datagram(own, two.address, b"honest"))
    one.inject(honest)
    assert await two.dial(one.address) == "sb-1"
    assert dropped_by_guard(one) - before == len(attempts)
    arrived = [each for each in two.frames if b"spoof" in each]
    assert arrived == []
    assert any(b"honest" in each for each in two.frames)


async def test_there_is_no_ipv6_anywhere(scene: Stage) -> None:
    one, two = await scene.guest("sb-1", policy=EVERYTHING), await scene.guest("sb-2")
    for guest in (one, two):
        ip(guest.space, "-6", "addr", "add", f"fe80::{guest is one:d}2/64", "dev", "eth0", "nodad")
    for space in (one.link.namespace, two.link.namespace, hub_name(scene.tag)):
        assert ip(space, "-6", "addr").strip() == "", space
        assert ip(space, "-6", "route").strip() == "", space
    before = len(two.frames)

    def shout() -> None:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as datagrams:
            datagrams.sendto(b"six", ("ff02::1", 80, 0, socket.if_nametoindex("eth0")))

    await within(one.space, shout)
    assert await two.dial(one.address) == "sb-1"
    assert [each for each in two.frames[before:] if each[12:14] == ETHERNET_IPV6 and b"six" in each] == []


async def test_oversized_and_broken_frames_harm_nobody(scene: Stage) -> None:
    one, two = await scene.guest("sb-1"), await scene.guest("sb-2")
    for size in (0, 1, 13, 14, 15, 33, 1514, 1600, 9000, 65_000):
        with_head = (frame(b"") + os.urandom(65_000))[:size]
        for bytes_ in (with_head, os.urandom(size)):
            try:
                one.inject(bytes_)
            except OSError as error:
                assert error.errno == 22  # shorter than an Ethernet header: the kernel refuses it
    assert await one.dial(two.address) == "sb-2"
    assert await two.dial(one.address) == "sb-1"


async def test_settings_that_are_inherited_from_a_careless_host_are_set_right(scene: Stage) -> None:
    guest = await scene.guest("sb-1")

    def settings() -> dict[str, str]:
        names = [
            f"{scope}/{name}"
            for scope in ("all", "net0", "tap0")
            for name in ("rp_filter", "route_localnet", "send_redirects", "accept_redirects", "arp_ignore", "proxy_arp")
        ]
        return {name: Path("/proc/sys/net/ipv4/conf", name).read_text().strip() for name in names}

    for name, value in (await namespaces.enter(guest.link.namespace, settings, discard=lambda _: None)).items():
        assert value == ("1" if name.split("/")[1] in ("rp_filter", "arp_ignore") else "0"), name
