from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import select
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest

from hearth.errors import Conflict
from hearth.guest.dial import Dialer
from hearth.host import namespaces
from hearth.network.machine import MachineNetwork
from hearth.network.plan import PLAN, Link

pytestmark = pytest.mark.root

VNET_HEADER = 10
"""Bytes of struct virtio_net_hdr before each frame (linux/virtio_net.h)."""
CRASHING = """
import asyncio, os, sys
from hearth.network.machine import MachineNetwork
async def main():
    link = await MachineNetwork(sys.argv[1]).setup("sb-crashed")
    print(link.namespace, file=sys.stderr, flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"""


@pytest.fixture
async def network() -> AsyncIterator[MachineNetwork]:
    chosen = MachineNetwork(secrets.token_hex(3))
    yield chosen
    for sandbox_id in await chosen.list():
        await chosen.teardown(sandbox_id)


@pytest.fixture
async def link(network: MachineNetwork) -> AsyncIterator[Link]:
    made = await network.setup("sb-1")
    yield made
    os.close(made.tap_fd)


def shown(space: str, *words: str) -> Any:
    return json.loads(subprocess.run(["ip", "-n", space, "-j", *words], check=True, capture_output=True).stdout)


def change(space: str, *words: str) -> None:
    subprocess.run(["ip", "-n", space, *words], check=True)


def next_frame(tap_fd: int, wait_s: float = 30.0) -> bytes:
    """Give the next Ethernet frame a guest would receive."""
    assert select.select([tap_fd], [], [], wait_s)[0], "no frame"
    return os.read(tap_fd, 65536)[VNET_HEADER:]


async def test_a_machine_gets_a_wire_with_both_ends_set(link: Link) -> None:
    assert (link.guest_ip, link.gateway, link.prefix_length) == (
        IPv4Address("172.16.0.2"),
        IPv4Address("172.16.0.1"),
        30,
    )
    loopback, tap = shown(link.namespace, "addr")
    assert "UP" in loopback["flags"]
    assert "UP" in tap["flags"]
    assert tap["address"] == PLAN.gateway_mac
    assert [each["local"] for each in tap["addr_info"]] == ["172.16.0.1"]
    (neighbour,) = shown(link.namespace, "neigh")
    assert (neighbour["dst"], neighbour["lladdr"], neighbour["state"]) == (str(link.guest_ip), link.mac, ["PERMANENT"])


async def test_there_is_no_way_out(link: Link) -> None:
    assert {each["ifname"] for each in shown(link.namespace, "link")} == {"lo", "tap0"}
    assert [each["dst"] for each in shown(link.namespace, "route")] == ["172.16.0.0/30"]
    assert shown(link.namespace, "-6", "addr") == []

    def settings() -> list[str]:
        names = ["ipv4/ip_forward", "ipv6/conf/all/disable_ipv6", "ipv6/conf/default/disable_ipv6"]
        return [Path("/proc/sys/net", name).read_text().strip() for name in [*names, "ipv6/conf/tap0/disable_ipv6"]]

    assert await namespaces.enter(link.namespace, settings, discard=lambda _: None) == ["0", "1", "1", "1"]
    for address in ("8.8.8.8", "169.254.169.254", "10.0.0.1"):
        with pytest.raises(OSError, match="unreachable"):
            await namespaces.connect_in(link.namespace, (address, 80), 1.0)


async def test_the_first_packet_to_a_guest_is_the_connection_itself_and_not_a_question_for_its_address(
    network: MachineNetwork, link: Link
) -> None:
    with pytest.raises(TimeoutError):
        await network.dialer("sb-1").connect(1024)
    frame = next_frame(link.tap_fd)
    assert frame[:6] == bytes.fromhex(link.mac.replace(":", ""))
    assert frame[12:14] == b"\x08\x00"  # IPv4; ARP would be 0806
    assert frame[23] == socket.IPPROTO_TCP
    assert frame[36:38] == (1024).to_bytes(2, "big")
    assert frame[47] == 0x02  # SYN alone


async def test_where_nobody_is_home_each_attempt_calls_anew(network: MachineNetwork, link: Link) -> None:
    dialer = network.dialer("sb-1")
    for _ in range(3):
        with pytest.raises(TimeoutError):
            await dialer.connect(1024)
    # How long each waits is for test_patience: a clock says nothing on a loaded machine.
    callers: set[bytes] = set()
    while len(callers) < 3:
        callers.add(next_frame(link.tap_fd)[34:36])


async def test_the_dialer_reaches_what_listens_at_the_guests_address(network: MachineNetwork, link: Link) -> None:
    # No machine here: the guest's address is given to the loopback of the namespace, behind the same dialer.
    change(link.namespace, "neigh", "flush", "all", "nud", "permanent")
    change(link.namespace, "addr", "add", "172.16.0.2/32", "dev", "lo")
    server = await namespaces.enter(
        link.namespace, lambda: socket.create_server(("172.16.0.2", 1024)), discard=socket.socket.close
    )
    dialer: Dialer = network.dialer("sb-1")
    with server, await dialer.connect(1024) as client:
        accepted, peer = server.accept()
        accepted.close()
        assert peer[1] == client.getsockname()[1]
        assert client.getblocking() is False
        assert client.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
        with pytest.raises(ConnectionRefusedError):
            await dialer.connect(1025)


async def test_dialing_a_machine_that_is_gone_is_an_oserror(network: MachineNetwork) -> None:
    with pytest.raises(FileNotFoundError):
        await network.dialer("sb-gone").connect(1024)


async def test_setting_up_twice_is_a_conflict_and_harms_nothing(network: MachineNetwork, link: Link) -> None:
    with pytest.raises(Conflict):
        await network.setup("sb-1")
    assert {each["ifname"] for each in shown(link.namespace, "link")} == {"lo", "tap0"}


async def test_teardown_is_idempotent_and_takes_only_its_own(network: MachineNetwork, link: Link) -> None:
    other = MachineNetwork(secrets.token_hex(3))
    second, foreign = await network.setup("sb-2"), await other.setup("sb-1")
    try:
        await network.teardown("sb-1")
        await network.teardown("sb-1")
        assert await network.list() == {"sb-2"}
        assert await other.list() == {"sb-1"}
    finally:
        await other.teardown("sb-1")
        os.close(second.tap_fd)
        os.close(foreign.tap_fd)


async def test_a_crash_leaves_a_namespace_that_the_next_daemon_finds_and_removes(network: MachineNetwork) -> None:
    tag = network.namespace("x").split("-")[1]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", CRASHING, tag, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
    )
    try:
        assert process.stderr is not None
        async with asyncio.timeout(120):
            space = (await process.stderr.readline()).decode().strip()
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGKILL)
        await process.wait()
    assert await network.list() == {"sb-crashed"}
    assert [each["ifname"] for each in shown(space, "link")] == ["lo"]  # the TAP went with its only user
    await network.teardown("sb-crashed")
    assert await network.list() == set()
    again = await network.setup("sb-crashed")
    os.close(again.tap_fd)


async def test_fifty_machines_come_and_go_together(network: MachineNetwork) -> None:
    ids = {f"sb-{number}" for number in range(50)}
    links = await asyncio.gather(*(network.setup(sandbox_id) for sandbox_id in sorted(ids)))
    try:
        assert await network.list() == ids
        assert len({link.tap_fd for link in links}) == 50
    finally:
        await asyncio.gather(*(network.teardown(sandbox_id) for sandbox_id in ids))
        await asyncio.gather(*(asyncio.to_thread(os.close, link.tap_fd) for link in links))
    assert await network.list() == set()
