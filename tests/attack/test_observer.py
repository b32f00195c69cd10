"""The observer, on namespaces in place of guests: what left, what was handed on, and when it is not to be believed."""

from __future__ import annotations

import secrets
import socket
from collections.abc import AsyncIterator
from ipaddress import IPv4Network

import pytest
from tests.network.stage import PORT, PUBLIC, Guest, Stage, stage

from hearth.attack import observer as watching
from hearth.attack.guest import packets as p
from hearth.attack.observer import Place, find_place, observing
from hearth.host.netlink import RouteSocket
from hearth.network.plan import PLAN
from hearth.network.policy import PUBLIC as EVERYTHING

pytestmark = [pytest.mark.root, pytest.mark.slow]

RUN = "0123abcd"
GATEWAY_MAC, GUEST_MAC = (bytes.fromhex(mac.replace(":", "")) for mac in (PLAN.gateway_mac, PLAN.guest_mac))


@pytest.fixture
async def scene() -> AsyncIterator[Stage]:
    async with stage() as made:
        yield made


def new_id() -> str:
    """Give an id that no other stage of this host has at the same time."""
    return f"sb-{secrets.token_hex(6)}"


def place_of(guest: Guest) -> Place:
    sandbox_id = guest.link.namespace.split("-", 2)[2]
    place = find_place(sandbox_id, guest.address)
    assert isinstance(place, Place)
    return place


def datagram(destination: str, probe: str, *, source: str = str(PLAN.guest.ip), mac: bytes = GUEST_MAC) -> bytes:
    packet = p.ipv4(source, destination, socket.IPPROTO_UDP, p.udp(4000, 9, p.mark(RUN, probe)))
    return p.ethernet(GATEWAY_MAC, mac, p.IPV4, packet)


async def test_it_sees_what_leaves_and_what_is_handed_on(scene: Stage) -> None:
    one, two = await scene.guest(new_id(), policy=EVERYTHING), await scene.guest(new_id())
    stranger = await scene.guest(new_id(), owner="bob")
    async with observing(RUN, place_of(one)) as observer:
        assert await one.dial(PUBLIC[0]) == f"world {PUBLIC[0]}"
        assert await one.dial(stranger.address) == "refused"
        assert await one.dial("169.254.169.254") == "refused"
        one.inject(datagram(two.address, "honest"))
        one.inject(datagram(two.address, "spoofed-ip", source="9.9.9.9"))
        one.inject(datagram(two.address, "spoofed-mac", mac=bytes.fromhex("020000000099")))
        one.inject(datagram(stranger.address, "abroad"))
        two.inject(datagram(one.address, "anothers"))
        assert (await one.dial(two.address)).startswith("sb-")
        seen = observer.finish()
    assert seen is not None
    assert seen.left == {"honest", "spoofed-ip", "spoofed-mac", "abroad"}
    assert seen.passed == {"honest"}
    refused = {("tcp", stranger.address, PORT), ("tcp", "169.254.169.254", PORT)}
    reached = {("tcp", two.address, PORT), ("tcp", PUBLIC[0], PORT)}
    assert refused | reached <= seen.flows_left
    assert reached <= seen.flows_passed
    assert not refused & seen.flows_passed


async def test_one_that_lost_frames_tells_nothing(scene: Stage) -> None:
    one, two = await scene.guest(new_id()), await scene.guest(new_id())
    async with observing(RUN, place_of(one), buffer_bytes=1) as observer:
        for number in range(2000):
            one.inject(datagram(two.address, f"flood-{number}"))
        assert observer.finish() is None


async def test_it_finds_the_addresses_of_the_host_between_and_behind_the_bridges(scene: Stage) -> None:
    uplink = scene.settings.uplink
    assert uplink is not None
    closed = await scene.guest(new_id())
    bridge = str(next(IPv4Network(f"{closed.address}/22", strict=False).hosts()))
    with RouteSocket() as route:
        own = {str(each.ip) for each in route.addresses()}
    found = await watching.host_addresses(place_of(closed))
    assert found[0] == bridge
    assert set(found[1:]) <= own, "nothing is linked: the tests' own host is meant"
    opened = await scene.guest(new_id(), policy=EVERYTHING)
    ends = {str(uplink.host_end.ip), str(uplink.hub_end.ip)}
    found = await watching.host_addresses(place_of(opened))
    assert set(found) == {bridge, *ends}, "the link is in another namespace than the tests'"


def test_a_sandbox_that_is_not_on_this_host_is_not_observed() -> None:
    assert find_place(new_id(), "100.64.0.2") == "the daemon's namespaces are not on this host"
