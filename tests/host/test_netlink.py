from __future__ import annotations

import errno
import fcntl
import json
import os
import secrets
import socket
import struct
import subprocess
from collections.abc import AsyncIterator
from ipaddress import IPv4Address, IPv4Interface
from typing import Any

import pytest

from hearth.errors import InvalidInput
from hearth.host import namespaces, netlink
from hearth.host.netlink import Request

TUNGETIFF = 0x800454D2
"""linux/if_tun.h"""

GOLDEN = [
    ("a link up", netlink.bring_up(7), "20000000 1000 0500 01000000 00000000 00 00 0000 07000000 01000000 01000000"),
    (
        "a link up with a MAC address",
        netlink.bring_up(7, mac="02:68:65:61:00:01"),
        "2c000000 1000 0500 01000000 00000000 00 00 0000 07000000 01000000 01000000 0a00 0100 026865610001 0000",
    ),
    (
        "an address",
        netlink.add_address(7, IPv4Interface("172.16.0.1/30")),
        "28000000 1400 0506 01000000 00000000 02 1e 00 00 07000000 0800 0200 ac100001 0800 0100 ac100001",
    ),
    (
        "a neighbour",
        netlink.add_neighbour(7, IPv4Address("172.16.0.2"), "02:68:65:61:00:02"),
        "30000000 1c00 0505 01000000 00000000 02 000000 07000000 8000 00 00 "
        "0800 0100 ac100002 0a00 0200 026865610002 0000",
    ),
]


@pytest.mark.parametrize(("what", "request_", "words"), GOLDEN)
def test_requests_are_the_bytes_of_the_kernels_headers(what: str, request_: Request, words: str) -> None:
    assert request_.encode(1) == bytes.fromhex(words.replace(" ", "")), what


@pytest.mark.parametrize(("value", "size"), [(b"", 4), (b"1", 8), (b"1234", 8), (b"12345", 12)])
def test_attributes_are_padded_to_four_bytes_and_their_length_is_not(value: bytes, size: int) -> None:
    encoded = netlink.attribute(3, value)
    assert len(encoded) == size
    assert struct.unpack_from("=HH", encoded) == (4 + len(value), 3)


@pytest.mark.parametrize("name", ["", "sixteen-letters-"])
def test_an_interface_name_the_kernel_would_cut_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput):
        netlink.open_tap(name)


@pytest.fixture
async def space() -> AsyncIterator[tuple[str, int]]:
    """A namespace with a TAP ``t0`` in it, down and bare, and the TAP's descriptor."""
    name = f"hearth-test-{secrets.token_hex(4)}"
    descriptor = await namespaces.create(name, lambda: netlink.open_tap("t0"), discard=os.close)
    yield name, descriptor
    os.close(descriptor)
    await namespaces.delete(name)


def shown(space: str, *words: str) -> Any:
    """What iproute2, which shares nothing with us, sees in there."""
    return json.loads(subprocess.run(["ip", "-n", space, "-j", *words], check=True, capture_output=True).stdout)


async def ask(space: str, request: Request) -> None:
    def work() -> None:
        with netlink.RouteSocket() as route:
            route.ask(request)

    await namespaces.enter(space, work, discard=lambda _: None)


async def index_of(space: str, link: str) -> int:
    return await namespaces.enter(space, lambda: socket.if_nametoindex(link), discard=lambda _: None)


@pytest.mark.root
async def test_the_kernel_does_what_the_requests_say(space: tuple[str, int]) -> None:
    name, _ = space
    index = await index_of(name, "t0")
    await ask(name, netlink.bring_up(index, mac="02:00:00:00:00:0a"))
    await ask(name, netlink.add_address(index, IPv4Interface("192.0.2.1/29")))
    await ask(name, netlink.add_neighbour(index, IPv4Address("192.0.2.2"), "02:00:00:00:00:0b"))
    (link,) = shown(name, "addr", "show", "dev", "t0")
    assert "UP" in link["flags"]
    assert link["address"] == "02:00:00:00:00:0a"
    assert [(each["local"], each["prefixlen"]) for each in link["addr_info"] if each["family"] == "inet"] == [
        ("192.0.2.1", 29)
    ]
    neighbours = [each for each in shown(name, "neigh") if each["dst"] == "192.0.2.2"]
    assert [(each["lladdr"], each["state"]) for each in neighbours] == [("02:00:00:00:00:0b", ["PERMANENT"])]


@pytest.mark.root
async def test_a_refusal_carries_the_kernels_reason(space: tuple[str, int]) -> None:
    name, _ = space
    index = await index_of(name, "t0")
    await ask(name, netlink.add_address(index, IPv4Interface("192.0.2.1/29")))
    with pytest.raises(OSError, match="rtnetlink request 20") as caught:
        await ask(name, netlink.add_address(index, IPv4Interface("192.0.2.1/29")))
    assert caught.value.errno == errno.EEXIST
    with pytest.raises(OSError, match="rtnetlink request 16") as caught:
        await ask(name, netlink.bring_up(4000))
    assert caught.value.errno == errno.ENODEV


@pytest.mark.root
async def test_a_tap_has_a_virtio_header_no_packet_information_and_no_life_of_its_own(space: tuple[str, int]) -> None:
    _, descriptor = space
    answer = fcntl.ioctl(descriptor, TUNGETIFF, bytes(40))
    tap, flags = netlink.INTERFACE_REQUEST.unpack(answer)
    wanted = netlink.IFF_TAP | netlink.IFF_NO_PI | netlink.IFF_VNET_HDR
    assert tap.rstrip(b"\0") == b"t0"
    assert flags & wanted == wanted
    assert not flags & 0x0800  # IFF_PERSIST
    assert not os.get_inheritable(descriptor)


@pytest.mark.root
async def test_a_tap_is_gone_when_its_last_descriptor_is_closed() -> None:
    name = f"hearth-test-{secrets.token_hex(4)}"
    descriptor = await namespaces.create(name, lambda: netlink.open_tap("t0"), discard=os.close)
    try:
        second = os.dup(descriptor)
        os.close(descriptor)
        assert [link["ifname"] for link in shown(name, "link")] == ["lo", "t0"]
        os.close(second)
        assert [link["ifname"] for link in shown(name, "link")] == ["lo"]
    finally:
        await namespaces.delete(name)
