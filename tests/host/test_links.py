from __future__ import annotations

import errno
import json
import os
import secrets
import subprocess
from collections.abc import AsyncIterator, Callable
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import Any, TypeVar

import pytest

from hearth.errors import InvalidInput
from hearth.host import links, namespaces, netlink
from hearth.host.netlink import Request, RouteSocket

pytestmark = pytest.mark.root

T = TypeVar("T")


@pytest.fixture
async def spaces() -> AsyncIterator[tuple[str, str]]:
    """Two namespaces."""
    names = [f"hearth-test-{secrets.token_hex(4)}" for _ in range(2)]
    for name in names:
        await namespaces.create(name, lambda: None, discard=lambda _: None)
    yield names[0], names[1]
    for name in names:
        await namespaces.delete(name)


async def within(space: str, work: Callable[[], T]) -> T:
    return await namespaces.enter(space, work, discard=lambda _: None)


async def ask(space: str, *requests: Request) -> None:
    def work() -> None:
        with RouteSocket() as route:
            route.ask_all(*requests)

    await within(space, work)


def shown(space: str, *words: str) -> Any:
    """What iproute2, which shares nothing with us, sees in there."""
    said = subprocess.run(["ip", "-n", space, "-d", "-j", *words], check=True, capture_output=True).stdout
    return json.loads(said or b"[]")


def qdiscs(space: str, link: str) -> Any:
    command = ["tc", "-n", space, "-j", "qdisc", "show", "dev", link]
    return json.loads(subprocess.run(command, check=True, capture_output=True).stdout)


async def pair(spaces: tuple[str, str]) -> None:
    descriptor = os.open(namespaces.RUN / spaces[1], os.O_RDONLY)
    try:
        await ask(spaces[0], links.add_veth("a0", "b0", descriptor, index=1000))
    finally:
        os.close(descriptor)


async def test_a_pair_of_links_has_its_ends_where_they_belong(spaces: tuple[str, str]) -> None:
    await pair(spaces)

    def described() -> netlink.FoundLink:
        with RouteSocket() as route:
            return route.link("a0")

    found = await within(spaces[0], described)
    (theirs,) = [each for each in shown(spaces[1], "link") if each["ifname"] == "b0"]
    assert (found.index, found.peer, found.is_up, found.master) == (1000, theirs["ifindex"], False, 0)
    with pytest.raises(OSError, match="rtnetlink request 16") as caught:
        await pair(spaces)
    assert caught.value.errno == errno.EEXIST
    await ask(spaces[0], links.delete_link(1000))
    assert [each["ifname"] for each in shown(spaces[1], "link")] == ["lo"]


async def test_a_link_is_renamed_described_plugged_in_and_brought_up_at_once(spaces: tuple[str, str]) -> None:
    await pair(spaces)
    await ask(spaces[0], links.add_bridge("br0", mac="02:00:00:00:00:01"))

    def plug() -> list[netlink.FoundLink]:
        with RouteSocket() as route:
            bridge = route.link("br0").index
            route.ask(links.change_link(bridge, alias="ann"))
            route.ask(links.change_link(1000, name="m1", mac="02:00:00:00:00:02", master=bridge, alias="sb-1", up=True))
            return route.links()

    found = {link.name: link for link in await within(spaces[0], plug)}
    assert (found["m1"].alias, found["m1"].master, found["m1"].is_up) == ("sb-1", found["br0"].index, True)
    assert found["br0"].alias == "ann"
    (seen,) = shown(spaces[0], "link", "show", "m1")
    assert (seen["master"], seen["ifalias"], seen["address"]) == ("br0", "sb-1", "02:00:00:00:00:02")


async def test_addresses_and_routes_are_read_as_they_were_written(spaces: tuple[str, str]) -> None:
    await pair(spaces)
    address, world = IPv4Interface("192.0.2.2/24"), IPv4Network("0.0.0.0/0")
    await ask(
        spaces[0],
        links.change_link(1000, up=True),
        netlink.add_address(1000, address),
        links.add_route(world, gateway=IPv4Address("192.0.2.1"), index=1000),
        links.add_route(IPv4Network("198.51.100.0/24"), index=1000),
    )

    def read() -> tuple[set[IPv4Interface], set[int]]:
        with RouteSocket() as route:
            return route.addresses(), route.default_links()

    assert await within(spaces[0], read) == ({address}, {1000})
    routes = {each["dst"]: each for each in shown(spaces[0], "route")}
    assert routes["default"]["gateway"] == "192.0.2.1"
    assert routes["198.51.100.0/24"]["scope"] == "link"
    assert await within(spaces[1], read) == (set(), set())


async def test_of_several_requests_the_refused_one_is_named_and_the_others_are_done(spaces: tuple[str, str]) -> None:
    await pair(spaces)
    with pytest.raises(OSError, match="rtnetlink request 17") as caught:
        await ask(spaces[0], links.delete_link(4000), links.change_link(1000, alias="still done"))
    assert caught.value.errno == errno.ENODEV
    assert shown(spaces[0], "link", "show", "a0")[0]["ifalias"] == "still done"


@pytest.mark.parametrize("rate", [10_000, 1_000_000, 12_500_000_000])
async def test_a_rate_is_bounded_bounded_anew_and_unbounded(spaces: tuple[str, str], rate: int) -> None:
    await pair(spaces)
    burst = max(65_536, rate // 50)
    for factor in (2, 1):
        await ask(spaces[0], links.limit_rate(1000, rate * factor, burst * factor, 4 * burst * factor))
    (seen,) = qdiscs(spaces[0], "a0")
    assert (seen["kind"], seen["options"]["rate"]) == ("tbf", rate)
    await ask(spaces[0], links.unlimit_rate(1000))
    with pytest.raises(OSError, match="rtnetlink request 37"):
        await ask(spaces[0], links.unlimit_rate(1000))


def test_a_name_the_kernel_would_cut_is_refused() -> None:
    for name in ("", "sixteen-letters-"):
        with pytest.raises(InvalidInput):
            links.add_bridge(name, mac="02:00:00:00:00:01")
