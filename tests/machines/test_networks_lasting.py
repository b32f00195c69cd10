"""Networks through copies, crowds and crashes: alive in every copy, and nothing left of those that are gone."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import threading
import time

import pytest
from tests.machines.sleepers import until
from tests.machines.test_first_light import vmms_of
from tests.machines.test_network_policies import REFUSED, Town, open_descriptors, settings_for, town
from tests.network.stage import PUBLIC, ip, stage
from tests.server.daemon import RunningDaemon, running_daemon

from hearth.config import DataDirectory
from hearth.errors import HearthError
from hearth.host import namespaces
from hearth.host.directory import load_tag
from hearth.model import Sandbox
from hearth.network.plan import hub_name, namespace_name, namespace_prefix, slot_prefix

WAIT_S = 60.0
MACHINES, AT_ONCE = 50, 5
SERVER = """
import socket
server = socket.create_server(("", 8000))
while True:
    caller, _ = server.accept()
    caller.sendall(socket.gethostname().encode())
    caller.close()
"""


async def serve(place: Town, sandbox: Sandbox) -> None:
    """Have a sandbox tell the name it has at the time on port 8000."""
    await place.house.shell(sandbox, f"setsid python3 -c '{SERVER}' >/dev/null 2>&1 </dev/null &")

    async def is_up() -> bool:
        return await place.call(sandbox, "127.0.0.1", 8000) == sandbox.spec.name

    await until(is_up, "the server listens")


async def test_the_network_is_alive_in_both_of_two_forks_and_in_their_source(slept_in: DataDirectory) -> None:
    async with town(slept_in) as place:
        house, networking = place.house, place.house.sandboxes.networking
        source = await house.create("web", net_policy={"base": "deny", "networks": [f"{PUBLIC[0]}/32"]})
        other = await house.create("other")
        await serve(place, source)
        copies = await house.sandboxes.fork(house.admin, "web", name="copy", count=2)
        family = [source, *copies]
        addresses = {str(networking.address(each)) for each in family}
        assert len(addresses) == 3 and "None" not in addresses

        # Everybody is reached by name and by address, by everybody, and is who it says.
        for caller in (*family, other):
            for callee in (each for each in family if each is not caller):
                name = callee.spec.name
                assert await place.call(caller, f"{name}.hearth", 8000) == name, (caller.spec.name, name)
                assert await place.call(caller, str(networking.address(callee)), 8000) == name
        # And everybody has the policy of the source.
        for each in family:
            assert await place.call(each, PUBLIC[0]) == f"world {PUBLIC[0]}"
            assert await place.call(each, PUBLIC[1]) == REFUSED

        # One that goes takes nothing of the others' with it; its address is nobody's then.
        gone, stays = copies
        address = str(networking.address(gone))
        await house.sandboxes.destroy(house.admin, gone.id)
        assert namespace_name(load_tag(slept_in), gone.id) not in namespaces.list_names("hearth-")
        assert await place.call(other, address, 8000) != gone.spec.name
        assert await place.call(stays, "web.hearth", 8000) == "web"
        assert await place.call(source, f"{stays.spec.name}.hearth", 8000) == stays.spec.name
        assert await place.call(stays, PUBLIC[0]) == f"world {PUBLIC[0]}"


@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_fifty_machines_come_and_go_five_at_a_time_and_leave_nothing(slept_in: DataDirectory) -> None:
    async with town(slept_in) as place:
        house, networking, tag = place.house, place.house.sandboxes.networking, load_tag(slept_in)
        async with house.sandbox("first"):
            """The template is there from here on."""
        descriptors = open_descriptors()
        for start in range(0, MACHINES, AT_ONCE):
            names = [f"dev-{number}" for number in range(start, start + AT_ONCE)]
            crowd = await asyncio.gather(*(house.create(name, net_policy={"base": "public"}) for name in names))
            addresses = {networking.address(each) for each in crowd}
            assert len(addresses) == AT_ONCE and None not in addresses
            assert await place.call(crowd[start // AT_ONCE % AT_ONCE], PUBLIC[0]) == f"world {PUBLIC[0]}"
            await asyncio.gather(*(house.sandboxes.destroy(house.admin, each.id) for each in crowd))
        assert ports_of(tag) == {}, "no bridge, no machine, no slot"
        assert namespaces.list_names(namespace_prefix(tag)) == set()
        assert open_descriptors() <= descriptors + AT_ONCE


def ports_of(tag: str) -> dict[str, str]:
    """Give the hub's bridges and ports with whose they are."""
    links = json.loads(ip(hub_name(tag), "-j", "link"))
    return {each["ifname"]: each.get("ifalias", "") for each in links if each["ifname"][0] in "bms"}


async def test_what_a_killed_daemon_left_of_networks_is_swept_by_the_next(slept_in: DataDirectory) -> None:
    async with stage() as scene:
        uplink = settings_for(scene).uplink
        await asyncio.to_thread(_kill_and_look, slept_in, ("--engine", "qemu", "--pool", "0", "--uplink", uplink))


def _kill_and_look(data: DataDirectory, words: tuple[str, ...]) -> None:
    tag = load_tag(data)
    slots = (*words, "--net-slots", "2")
    with running_daemon(data, *slots) as first, first.client() as client:
        kept = client.create(name="kept", keep_hot=True, net_policy={"default": "public"})
        lost = client.create(name="lost", keep_hot=True)
        made_ahead = _wait_for_slots(tag, 2)
        _kill_amid_a_creation(first, tag, {kept.id, lost.id})
        left = namespaces.list_names(namespace_prefix(tag))
        assert {namespace_name(tag, each.id) for each in (kept, lost)} < left, "nobody cleared up"
    for pid in vmms_of(lost.id):
        os.kill(pid, signal.SIGKILL)
    with running_daemon(data, *slots) as second, second.client() as again:
        states = {each.name: each.view.state for each in again.list()}
        assert states["kept"] == "running"
        assert again.get("kept").view.address == kept.view.address
        fresh = _wait_for_slots(tag, 2)
        running = {each.id for each in again.list() if each.view.state == "running"}
        assert lost.id not in running
        assert namespaces.list_names(namespace_prefix(tag)) == {namespace_name(tag, each) for each in running}
        assert not fresh & made_ahead, "slots of the killed daemon are gone"
        owners = {alias for name, alias in ports_of(tag).items() if name.startswith("m")}
        assert owners == running
        _wait_for_ports_of_slots(tag, 2)
    assert namespaces.list_names(f"hearth-{tag}") == set(), "and the last one takes all with it"


def _kill_amid_a_creation(daemon: RunningDaemon, tag: str, known: set[str]) -> None:
    """Kill a daemon as soon as the network of one more sandbox is there."""

    def create() -> None:
        with contextlib.suppress(HearthError), daemon.client(patience_s=0) as client:
            client.create(name="half")

    creating = threading.Thread(target=create)
    creating.start()
    try:
        deadline = time.monotonic() + WAIT_S
        there = {namespace_name(tag, each) for each in known}
        while not namespaces.list_names(namespace_prefix(tag)) - there:
            assert time.monotonic() < deadline, "no network was begun"
            time.sleep(0.001)
    finally:
        daemon.process.kill()
        daemon.process.wait()
        creating.join(WAIT_S)
    assert not creating.is_alive()


def _wait_for_ports_of_slots(tag: str, count: int) -> None:
    """A slot has its name a moment before it has its port."""
    deadline = time.monotonic() + WAIT_S
    while (found := len([name for name in ports_of(tag) if name.startswith("s")])) != count:
        assert time.monotonic() < deadline, f"{found} slots have ports"
        time.sleep(0.02)


def _wait_for_slots(tag: str, count: int) -> set[str]:
    deadline = time.monotonic() + WAIT_S
    while len(found := namespaces.list_names(slot_prefix(tag))) < count:
        assert time.monotonic() < deadline, f"{count} slots are not made"
        time.sleep(0.02)
    return found
