"""How the owners' networks come and go: idempotent, found again after a crash, with addresses that are used again."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from ipaddress import IPv4Network

import pytest
from tests.network.stage import PATIENCE_S, PUBLIC, SILENCE_S, Stage, inside, ip, plug_in, stage

from hearth.errors import Conflict, HostUnfit, InvalidInput, NotFound, Unavailable
from hearth.host import namespaces
from hearth.network.fabric import FabricSettings
from hearth.network.machine import MachineNetwork
from hearth.network.plan import hub_name, slot_prefix
from hearth.network.policy import PUBLIC as EVERYTHING
from hearth.network.policy import parse_policy
from hearth.network.uplink import Uplink
from hearth.network.watch import watch_addresses

pytestmark = pytest.mark.root

CRASHING = """
import asyncio, os, sys
from hearth.network.fabric import FabricSettings
from hearth.network.machine import MachineNetwork
async def main():
    network = MachineNetwork(sys.argv[1], fabric=FabricSettings(slots=2))
    await network.fabric.open()
    await network.fabric.slots_ready()
    link = await network.setup("sb-crashed", owner="ann")
    print(link.address, file=sys.stderr, flush=True)
    while True:
        other = await network.setup("sb-half", owner="ann")
        os.close(other.tap_fd)
        await network.teardown("sb-half")
asyncio.run(main())
"""


@pytest.fixture
async def scene() -> AsyncIterator[Stage]:
    async with stage() as made:
        yield made


@contextlib.asynccontextmanager
async def opened(settings: FabricSettings, tag: str | None = None) -> AsyncIterator[MachineNetwork]:
    network = MachineNetwork(tag or secrets.token_hex(4), fabric=settings)
    await network.fabric.open()
    try:
        yield network
    finally:
        for sandbox_id in await network.list():
            await network.teardown(sandbox_id)
        await network.fabric.close()


async def test_opening_twice_changes_nothing_and_closing_leaves_what_is_connected(scene: Stage) -> None:
    one = await scene.guest("sb-1", policy=EVERYTHING)
    two = await scene.guest("sb-2")
    rules = inside(scene.host, "nft", "list", "ruleset"), inside(hub_name(scene.tag), "nft", "-s", "list", "ruleset")
    links = ip(hub_name(scene.tag), "-br", "link"), ip(scene.host, "-br", "addr")
    for _ in range(2):
        await scene.network.fabric.close()
        await scene.network.fabric.open()
    after = inside(scene.host, "nft", "list", "ruleset"), inside(hub_name(scene.tag), "nft", "-s", "list", "ruleset")
    assert [without_counters(each) for each in after] == [without_counters(each) for each in rules]
    assert (ip(hub_name(scene.tag), "-br", "link"), ip(scene.host, "-br", "addr")) == links
    assert await one.dial(two.address) == "sb-2"
    assert await one.dial(PUBLIC[0]) == f"world {PUBLIC[0]}"


def without_counters(listing: str) -> list[str]:
    return [line.partition("counter")[0] for line in listing.splitlines()]


async def test_with_nobody_connected_closing_leaves_nothing(scene: Stage) -> None:
    link = await scene.network.setup("sb-1", owner="ann")
    os.close(link.tap_fd)
    await scene.network.teardown("sb-1")
    await scene.network.fabric.close()
    assert hub_name(scene.tag) not in namespaces.list_names("hearth-")
    assert f"hearth-{scene.tag}" not in ip(scene.host, "-br", "link")
    assert inside(scene.host, "nft", "list", "ruleset").strip() == ""
    await scene.network.fabric.open()


async def test_setting_up_twice_is_a_conflict_and_harms_nothing(scene: Stage) -> None:
    one, two = await scene.guest("sb-1"), await scene.guest("sb-2")
    with pytest.raises(Conflict):
        await scene.network.setup("sb-1", owner="ann")
    with pytest.raises(Conflict):
        await scene.network.setup("sb-1", owner="bob")
    assert await two.dial(one.address) == "sb-1"


async def test_a_cancelled_setup_leaves_nothing(scene: Stage) -> None:
    for wait_s in (0.0, 0.0005, 0.001, 0.002, 0.003, 0.005):
        task = asyncio.create_task(scene.network.setup("sb-1", owner="ann"))
        await asyncio.sleep(wait_s)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            os.close((await task).tap_fd)
            await scene.network.teardown("sb-1")
        assert await scene.network.list() == set()
    assert await (await scene.guest("sb-1")).dial(PUBLIC[0]) == "refused"


async def test_teardown_is_idempotent_and_gives_the_address_to_the_next(scene: Stage) -> None:
    one = await scene.guest("sb-1", policy=EVERYTHING)
    two = await scene.guest("sb-2")
    assert await one.dial(PUBLIC[0]) == f"world {PUBLIC[0]}"
    assert await two.dial(one.address) == "sb-1"
    await scene.network.teardown("sb-1")
    await scene.network.teardown("sb-1")
    await scene.network.teardown("sb-never")
    assert await two.dial(one.address, wait_s=SILENCE_S) in ("prohibited", "silence"), "nobody is there"
    tracked = inside(hub_name(scene.tag), "cat", "/proc/net/nf_conntrack")
    assert one.address not in tracked
    again = await scene.network.setup("sb-1", owner="ann")
    try:
        assert str(again.address) == one.address
        guest = await plug_in(again, scene.stack)
        await guest.serve(80, "reborn", scene.stack)
        assert await two.dial(one.address) == "reborn", "no stale neighbour entry leads astray"
        assert await guest.dial(PUBLIC[0]) == "refused", "the former policy did not come back with the address"
    finally:
        scene.stack.callback(os.close, again.tap_fd)


async def test_a_crash_in_the_middle_leaves_names_that_the_next_daemon_finds_and_sweeps() -> None:
    tag = secrets.token_hex(4)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", CRASHING, tag, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
    )
    try:
        assert process.stderr is not None
        async with asyncio.timeout(PATIENCE_S):
            address = (await process.stderr.readline()).decode().strip()
            await asyncio.sleep(0.1 + secrets.randbelow(100) / 1000)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGKILL)
        await process.wait()
    async with opened(FabricSettings(), tag) as network:
        assert "sb-crashed" in await network.list() <= {"sb-crashed", "sb-half"}
        assert namespaces.list_names(slot_prefix(tag)) == set()
        connected = json.loads(ip(hub_name(tag), "-j", "link", "show", "type", "veth"))
        assert {each.get("ifalias") for each in connected} >= {"sb-crashed"}
        assert not any(each["ifname"].startswith("s") for each in connected)
        with pytest.raises(NotFound):  # its TAP went with its only user
            await network.fabric.adopt("sb-crashed", name="x", policy=parse_policy({}))
        for sandbox_id in await network.list():
            await network.teardown(sandbox_id)
        assert await network.list() == set()
        link = await network.setup("sb-crashed", owner="ann")
        os.close(link.tap_fd)
        assert str(link.address) == address
    assert namespaces.list_names(f"hearth-{tag}") == set()


async def test_what_was_never_connected_cannot_be_adopted(scene: Stage) -> None:
    with pytest.raises(NotFound):
        await scene.network.fabric.adopt("sb-none", name="x", policy=EVERYTHING)
    with pytest.raises(NotFound):
        await scene.network.fabric.apply("sb-none", EVERYTHING)


async def test_an_owner_outgrows_a_block_and_everybody_reaches_everybody() -> None:
    async with stage(block_prefix=29) as scene:  # five machines a block
        guests = [await scene.guest(f"sb-{number}") for number in range(12)]
        stranger = await scene.guest("sb-x", owner="bob")
        blocks = {IPv4Network(f"{guest.address}/29", strict=False) for guest in guests}
        assert len(blocks) >= 3
        for number, other in enumerate(guests[1:], 1):
            assert await guests[0].dial(other.address) == f"sb-{number}"
        for guest in (guests[0], guests[-1]):
            assert await guest.dial(stranger.address) == "refused"
            assert await stranger.dial(guest.address) == "refused"


async def test_a_block_that_changed_hands_leads_nobody_to_its_new_owner() -> None:
    async with stage(block_prefix=29) as scene:
        guests = [await scene.guest(f"sb-{number}") for number in range(6)]
        far = next(guest for guest in guests if not in_one_block(guest.address, guests[0].address))
        assert (await guests[0].dial(far.address)).startswith("sb-")
        for sandbox_id in {each for each in await scene.network.list() if each != "sb-0"}:
            await scene.network.teardown(sandbox_id)
        for number in range(40):  # until somebody else got that very address
            link = await scene.network.setup(f"sb-y{number}", owner=f"bob{number}")
            scene.stack.callback(os.close, link.tap_fd)
            if in_one_block(str(link.address), far.address):
                break
        assert await guests[0].dial(far.address) in ("refused", "prohibited")
        for sandbox_id in await scene.network.list():
            if sandbox_id.startswith("sb-y"):
                await scene.network.teardown(sandbox_id)


def in_one_block(one: str, two: str) -> bool:
    return IPv4Network(f"{one}/29", strict=False) == IPv4Network(f"{two}/29", strict=False)


async def test_another_size_of_blocks_is_refused_while_machines_run(scene: Stage) -> None:
    one, two = await scene.guest("sb-1"), await scene.guest("sb-2")
    await scene.network.fabric.close()
    other = MachineNetwork(scene.tag, fabric=replace(scene.settings, block_prefix=26))
    with pytest.raises(HostUnfit, match="block_prefix"):
        await other.fabric.open()
    await scene.network.fabric.open()
    assert await two.dial(one.address) == "sb-1"


def test_a_supernet_that_overlaps_the_guests_wire_is_refused() -> None:
    with pytest.raises(InvalidInput) as caught:
        MachineNetwork("0badcafe", fabric=FabricSettings(supernet=IPv4Network("172.16.0.0/12")))
    assert caught.value.field == "supernet"


@pytest.mark.parametrize("owner", ["", "a\0b", "x" * 256, "é" * 128, "a\nb"])
async def test_an_owner_that_no_link_can_name_is_refused(scene: Stage, owner: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        await scene.network.setup("sb-1", owner=owner)
    assert caught.value.field == "owner"
    assert await scene.network.list() == set()


async def test_the_supernet_ends_with_words() -> None:
    settings = FabricSettings(supernet=IPv4Network("100.64.0.0/28"), block_prefix=29)
    async with opened(settings) as network:
        with contextlib.ExitStack() as stack:
            for owner in ("ann", "bob"):
                link = await network.setup(f"sb-{owner}", owner=owner)
                stack.callback(os.close, link.tap_fd)
            with pytest.raises(Unavailable, match="no addresses are left"):
                await network.setup("sb-cid", owner="cid")
            assert await network.list() == {"sb-ann", "sb-bob"}


@pytest.mark.slow
async def test_three_hundred_machines_of_one_owner_have_an_address_each_and_the_last_reaches_the_first(
    scene: Stage,
) -> None:
    first = await scene.guest("sb-first")
    addresses = {first.address}
    for number in range(299):
        link = await scene.network.setup(f"sb-{number}", owner="ann")
        os.close(link.tap_fd)
        addresses.add(str(link.address))
    last = await scene.guest("sb-last")
    assert len(addresses | {last.address}) == 301
    assert await last.dial(first.address) == "sb-first"
    await asyncio.gather(*(scene.network.teardown(f"sb-{number}") for number in range(299)))
    assert await scene.network.list() == {"sb-first", "sb-last"}


async def test_slots_are_claimed_from_the_pool_and_made_again() -> None:
    async with stage(slots=3) as scene:
        await scene.network.fabric.slots_ready()
        ready = namespaces.list_names(slot_prefix(scene.tag))
        assert len(ready) == 3
        one, two = await scene.guest("sb-1", policy=EVERYTHING), await scene.guest("sb-2")
        assert len(namespaces.list_names(slot_prefix(scene.tag)) & ready) >= 1
        assert await two.dial(one.address) == "sb-1"
        assert await one.dial(PUBLIC[0]) == f"world {PUBLIC[0]}"
        assert await two.dial(PUBLIC[0]) == "refused"
        await scene.network.fabric.slots_ready()
        assert len(namespaces.list_names(slot_prefix(scene.tag)) - ready) >= 2


async def test_a_claim_is_as_exclusive_as_a_setup() -> None:
    async with stage(slots=2, has_uplink=False) as scene:
        await scene.network.fabric.slots_ready()
        one = await scene.guest("sb-1")
        with pytest.raises(Conflict):
            await scene.network.setup("sb-1", owner="ann")
        alone = await scene.network.setup("sb-2")
        os.close(alone.tap_fd)
        with pytest.raises(Conflict):
            await scene.network.setup("sb-2", owner="ann")
        assert await scene.network.list() == {"sb-1", "sb-2"}
        assert await one.dial(PUBLIC[0]) == "refused", "without an uplink there is no world"
        await scene.network.teardown("sb-2")


async def test_a_network_that_is_in_use_on_the_host_is_refused_with_words(scene: Stage) -> None:
    taken = Uplink(link="hearth-0badcafe", network=IPv4Network("203.0.113.0/30"), namespace=scene.host)
    network = MachineNetwork("0badcafe", fabric=FabricSettings(uplink=taken))
    with pytest.raises(HostUnfit, match=r"203\.0\.113"):
        await network.fabric.open()
    await network.fabric.close()
    assert "hearth-0badcafe" not in ip(scene.host, "-br", "link")


async def test_a_reserved_machine_reaches_nothing_until_it_is_given_to_an_owner(scene: Stage) -> None:
    two = await scene.guest("sb-2")
    link = await scene.network.reserve("sb-1")
    scene.stack.push_async_callback(scene.network.teardown, "sb-1")
    one = await plug_in(link, scene.stack)
    scene.stack.callback(os.close, link.tap_fd)
    assert link.address is None and scene.network.address("sb-1") is None
    for address in (two.address, PUBLIC[0]):
        assert await one.dial(address, wait_s=SILENCE_S) in ("prohibited", "refused", "silence"), address

    await scene.network.connect("sb-1", owner="ann", name="late", policy=EVERYTHING)
    # The kernel takes note of its link a moment later: a first packet may be lost and sent again after a second.
    assert await one.dial(two.address) == "sb-2"
    assert await one.dial(PUBLIC[0]) == f"world {PUBLIC[0]}"
    assert scene.network.address("sb-1") is not None
    with pytest.raises(NotFound):
        await scene.network.connect("sb-1", owner="bob", name="late", policy=EVERYTHING)


async def test_the_host_is_left_alone_until_a_policy_leads_there(scene: Stage) -> None:
    guest = await scene.guest("sb-1")
    assert f"hearth-{scene.tag}" not in ip(scene.host, "-br", "link")
    assert inside(scene.host, "nft", "list", "ruleset").strip() == ""
    assert await guest.dial(PUBLIC[0]) == "refused"

    await scene.network.fabric.apply("sb-1", parse_policy({"networks": [f"{PUBLIC[0]}/32"]}))
    assert f"hearth-{scene.tag}" in ip(scene.host, "-br", "link")
    assert await guest.dial(PUBLIC[0]) == f"world {PUBLIC[0]}"


async def test_new_addresses_of_the_host_are_noticed(scene: Stage) -> None:
    uplink = scene.settings.uplink
    assert uplink is not None
    noticed = asyncio.Event()

    async def changed() -> None:
        await scene.network.fabric.refresh()
        noticed.set()

    guest = await scene.guest("sb-1", policy=parse_policy({"networks": ["10.0.0.0/8"]}))
    watching = asyncio.create_task(watch_addresses(uplink, changed))
    try:
        async with asyncio.timeout(2 * PATIENCE_S):
            while not noticed.is_set():  # whenever the watch begins to listen
                ip(scene.host, "addr", "add", "10.77.0.1/32", "dev", "lo")
                ip(scene.host, "addr", "del", "10.77.0.1/32", "dev", "lo")
                await asyncio.sleep(0.05)
            noticed.clear()
            ip(scene.host, "addr", "add", "10.77.0.1/32", "dev", "lo")
            await noticed.wait()
            while await guest.dial("10.77.0.1", 81) != "refused":
                await noticed.wait()
        assert (await scene.event(lambda each: str(each.address) == "10.77.0.1")).rule == "host"
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
