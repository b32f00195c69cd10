"""What a policy opens and closes, on namespaces in place of guests: live, at once, with an answer and an event."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import struct
import time
from collections.abc import AsyncIterator
from ipaddress import IPv4Address, IPv4Network

import pytest
from tests.network.nameserver import nameserver
from tests.network.stage import INSIDE, PATIENCE_S, PUBLIC, Guest, Stage, stage, within

from hearth.network import dns
from hearth.network.dns import Code, Kind
from hearth.network.events import EventKind, minimal_policy
from hearth.network.machine import MachineNetwork
from hearth.network.policy import DEFAULT, Base, Policy, parse_policy
from hearth.network.policy import PUBLIC as EVERYTHING
from hearth.network.rules import EVENT_BURST, EVENTS_PER_S, MOST_NAMED_ADDRESSES

pytestmark = pytest.mark.root

GATEWAY = ("172.16.0.1", 53)
TABLE = {
    "api.example.com": ["1.2.3.4"],
    "www.example.com": ["alias.example.net"],
    "alias.example.net": ["8.8.8.8"],
    "evil.example.com": ["169.254.169.254"],
    "mixed.example.com": ["8.8.8.8", "10.1.2.3"],
    "office.example.com": ["10.1.2.3"],
    "many.example.com": [f"1.2.{number // 250}.{number % 250 + 1}" for number in range(100)],
}


@pytest.fixture
async def scene() -> AsyncIterator[Stage]:
    async with stage() as made:
        yield made


async def ask(guest: Guest, name: str, kind: int = Kind.A, *, by_stream: bool = False) -> tuple[int, list[str]]:
    """Ask the guest's resolver; gives the response code and the addresses."""
    question = struct.pack(">HHHHHH", 7, 0x0100, 1, 0, 0, 0) + dns.encode_name(name) + struct.pack(">HH", kind, 1)

    def work() -> bytes:
        if by_stream:
            with socket.create_connection(GATEWAY, PATIENCE_S) as stream:
                stream.sendall(struct.pack(">H", len(question)) + question)
                file = stream.makefile("rb")
                with file:
                    return file.read(int.from_bytes(file.read(2), "big"))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
            datagrams.settimeout(PATIENCE_S)
            datagrams.sendto(question, GATEWAY)
            return datagrams.recv(65_535)

    answer = dns.parse_answer(await within(guest.space, work))
    if answer.is_truncated:
        return -1, []
    return answer.code, sorted(str(record.address) for record in answer.answers if record.address is not None)


async def test_the_default_is_neighbours_and_nothing_of_the_world(scene: Stage) -> None:
    one, two = await scene.guest("sb-1"), await scene.guest("sb-2")
    assert one.link.address is not None
    assert await one.dial(two.address) == "sb-2"
    assert await one.dial(PUBLIC[0]) == "refused"
    event = await scene.event(lambda each: each.sandbox_id == "sb-1")
    assert (event.kind, event.rule, str(event.address), event.port) == (EventKind.DENIED, "deny", PUBLIC[0], 80)


async def test_a_refused_datagram_is_answered_too(scene: Stage) -> None:
    guest = await scene.guest("sb-1")
    assert await guest.send(PUBLIC[0], 4000) == f"errno {errno.EHOSTUNREACH}"
    assert (await scene.event(lambda each: each.port == 4000)).protocol == "udp"


async def test_networks_open_what_they_hold_private_ones_included_and_never_metadata(scene: Stage) -> None:
    policy = parse_policy({"networks": ["1.2.3.0/24", "10.0.0.0/8", "169.0.0.0/8"]})
    guest = await scene.guest("sb-1", policy=policy)
    assert await guest.dial("1.2.3.4") == "world 1.2.3.4"
    assert await guest.dial("10.1.2.3") == "world 10.1.2.3"
    for address in ("9.9.9.9", "192.168.7.7", "169.254.169.254", "168.63.129.16"):
        assert await guest.dial(address) == "refused", address


async def test_a_machine_can_be_kept_from_its_neighbours(scene: Stage) -> None:
    one = await scene.guest("sb-1", policy=Policy(base=Base.PUBLIC, neighbours=False))
    two = await scene.guest("sb-2")
    assert await one.dial(two.address) == "refused"
    assert await two.dial(one.address) == "refused"
    assert await one.dial(PUBLIC[0]) == f"world {PUBLIC[0]}"


class Line:
    """A TCP connection of a guest that stays open."""

    def __init__(self, stream: socket.socket) -> None:
        self.stream = stream

    def echo(self, words: bytes = b"ping") -> str:
        try:
            self.stream.sendall(words)
            return self.stream.recv(64).decode()
        except TimeoutError:
            return "silence"
        except OSError as error:
            return errno.errorcode[error.errno or 0]


async def call(guest: Guest, address: str, stack: contextlib.AsyncExitStack) -> Line:
    stream = await within(guest.space, lambda: socket.create_connection((address, 80), PATIENCE_S))
    stack.callback(stream.close)
    stream.settimeout(PATIENCE_S)
    assert await asyncio.to_thread(stream.recv, 64) == f"world {address}".encode()
    return Line(stream)


async def test_an_edit_cuts_open_connections_that_are_denied_now_and_keeps_the_others(scene: Stage) -> None:
    guest = await scene.guest("sb-1", policy=EVERYTHING)
    kept, cut = await call(guest, "1.2.3.4", scene.stack), await call(guest, "9.9.9.9", scene.stack)
    assert (await asyncio.to_thread(kept.echo), await asyncio.to_thread(cut.echo)) == ("ping", "ping")
    await scene.network.fabric.apply("sb-1", parse_policy({"networks": ["1.2.3.4"]}))
    assert await asyncio.to_thread(kept.echo) == "ping"
    assert await asyncio.to_thread(cut.echo) == "ECONNRESET"
    await scene.network.fabric.apply("sb-1", EVERYTHING)
    assert await guest.dial("9.9.9.9") == "world 9.9.9.9"
    assert await asyncio.to_thread(kept.echo) == "ping"


async def test_an_edit_reaches_a_connection_on_which_only_the_world_speaks(scene: Stage) -> None:
    guest = await scene.guest("sb-1", policy=EVERYTHING)
    listener = await within(scene.world, lambda: socket.create_server(("8.8.8.8", 4002)))
    with listener, await within(guest.space, lambda: socket.create_connection(("8.8.8.8", 4002), PATIENCE_S)) as caller:
        callee, _ = listener.accept()
        with callee:
            callee.sendall(b"before")
            assert await asyncio.to_thread(caller.recv, 64) == b"before"
            await scene.network.fabric.apply("sb-1", DEFAULT)
            callee.settimeout(PATIENCE_S)
            callee.sendall(b"after")
            with pytest.raises(ConnectionResetError):
                await asyncio.to_thread(callee.recv, 64)
    assert not any(b"after" in each for each in guest.frames)


async def test_a_refused_edit_changes_nothing(scene: Stage) -> None:
    guest = await scene.guest("sb-1", policy=EVERYTHING)
    with pytest.raises(Exception, match="invalid networks"):
        await scene.network.fabric.apply("sb-1", parse_policy({"networks": ["nonsense"]}))
    assert await guest.dial(PUBLIC[0]) == f"world {PUBLIC[0]}"


async def test_names_open_the_addresses_that_our_resolver_gave_and_no_others(scene: Stage) -> None:
    await nameserver(scene, TABLE)
    guest = await scene.guest("sb-1", policy=parse_policy({"names": ["*.example.com"]}))
    assert await guest.dial("1.2.3.4") == "refused"
    assert await ask(guest, "api.example.com") == (Code.OK, ["1.2.3.4"])
    assert await guest.dial("1.2.3.4") == "world 1.2.3.4"
    assert await ask(guest, "www.example.com", by_stream=True) == (Code.OK, ["8.8.8.8"])
    assert await guest.dial("8.8.8.8") == "world 8.8.8.8"
    assert await guest.dial("9.9.9.9") == "refused"
    other = await scene.guest("sb-2", policy=parse_policy({"names": ["*.example.com"]}))
    assert await other.dial("1.2.3.4") == "refused", "another guest's answers open nothing here"


async def test_a_name_that_is_not_listed_is_refused_and_never_asked_of_the_world(scene: Stage) -> None:
    server = await nameserver(scene, TABLE)
    guest = await scene.guest("sb-1", policy=parse_policy({"names": ["api.example.com"]}))
    for kind in (Kind.A, Kind.AAAA, 16):
        assert await ask(guest, "c2VjcmV0.tunnel.example.net", kind) == (Code.REFUSED, [])
    assert server.asked == []
    event = await scene.event(lambda each: each.kind is EventKind.NAME_DENIED)
    assert (event.host, event.rule) == ("c2vjcmv0.tunnel.example.net", "name")


async def test_an_edit_takes_a_name_and_its_addresses_away(scene: Stage) -> None:
    await nameserver(scene, TABLE)
    both = parse_policy({"names": ["api.example.com", "www.example.com"]})
    guest = await scene.guest("sb-1", policy=both)
    await ask(guest, "api.example.com")
    await ask(guest, "www.example.com")
    await scene.network.fabric.apply("sb-1", parse_policy({"names": ["api.example.com"]}))
    assert await guest.dial("1.2.3.4") == "world 1.2.3.4"
    assert await guest.dial("8.8.8.8") == "refused"
    event = await scene.event(lambda each: str(each.address) == "8.8.8.8")
    assert (event.host, event.rule) == ("www.example.com", "deny")


@pytest.mark.parametrize("name", ["evil.example.com", "mixed.example.com", "office.example.com"])
async def test_a_name_of_the_world_that_leads_inside_is_refused(scene: Stage, name: str) -> None:
    await nameserver(scene, TABLE)
    guest = await scene.guest("sb-1", policy=EVERYTHING)
    assert await ask(guest, name) == (Code.REFUSED, [])
    assert (await scene.event(lambda each: each.host == name)).rule == "rebinding"
    await scene.network.fabric.apply("sb-1", Policy(base=Base.PUBLIC, networks=(IPv4Network("10.0.0.0/8"),)))
    expected = (Code.REFUSED, []) if name.startswith("evil") else (Code.OK, sorted(TABLE[name]))
    assert await ask(guest, name) == expected


async def test_names_of_the_owners_sandboxes_and_of_nobody_elses(scene: Stage) -> None:
    server = await nameserver(scene, {})
    one = await scene.guest("sb-1", name="web")
    two = await scene.guest("sb-2", name="db")
    other = await scene.guest("sb-3", owner="bob", name="vault")
    assert await ask(one, "db.hearth") == (Code.OK, [two.address])
    assert await ask(one, "DB.Hearth", by_stream=True) == (Code.OK, [two.address])
    assert await ask(one, "db") == (Code.OK, [two.address])
    assert await ask(one, "db.hearth", Kind.AAAA) == (Code.OK, [])
    assert await ask(one, "vault.hearth") == (Code.NO_NAME, [])
    assert await ask(other, "web.hearth") == (Code.NO_NAME, [])
    assert await ask(other, "vault.hearth") == (Code.OK, [other.address])
    scene.network.fabric.connection("sb-2").rename("cache")
    assert await ask(one, "db.hearth") == (Code.NO_NAME, [])
    assert await ask(one, "cache.hearth") == (Code.OK, [two.address])
    await scene.network.teardown("sb-2")
    assert await ask(one, "cache.hearth") == (Code.NO_NAME, [])
    assert server.asked == []


async def test_a_long_answer_comes_by_stream_and_the_world_decides_what_does_not_exist(scene: Stage) -> None:
    await nameserver(scene, TABLE)
    guest = await scene.guest("sb-1", policy=EVERYTHING)
    assert await ask(guest, "many.example.com") == (-1, [])
    code, addresses = await ask(guest, "many.example.com", by_stream=True)
    assert (code, len(addresses)) == (Code.OK, 100)
    assert await ask(guest, "nothing.example.org") == (Code.NO_NAME, [])


async def test_an_answer_is_remembered_for_its_owner_alone(scene: Stage) -> None:
    server = await nameserver(scene, TABLE)
    one, two = await scene.guest("sb-1", policy=EVERYTHING), await scene.guest("sb-2", policy=EVERYTHING)
    other = await scene.guest("sb-3", owner="bob", policy=EVERYTHING)
    for guest in (one, one, two):
        assert await ask(guest, "api.example.com") == (Code.OK, ["1.2.3.4"])
    assert len(server.asked) == 1
    await ask(other, "api.example.com")
    assert len(server.asked) == 2


async def test_a_guest_that_asks_too_much_is_refused_and_the_others_are_not(scene: Stage) -> None:
    one, two = await scene.guest("sb-1", name="one"), await scene.guest("sb-2", name="two")
    question = struct.pack(">HHHHHH", 7, 0x0100, 1, 0, 0, 0) + dns.encode_name("two.hearth") + b"\0\1\0\1"

    began = time.monotonic()

    def flood() -> tuple[int, int]:
        """Ask in bursts until something is refused; gives the answers, and the refusals among them."""
        answered = refused = 0
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
            datagrams.settimeout(0.05)
            while not refused and time.monotonic() - began < PATIENCE_S:
                for _ in range(100):
                    datagrams.sendto(question, GATEWAY)
                with contextlib.suppress(TimeoutError):
                    while True:
                        refused += datagrams.recv(512)[3] & 0xF == Code.REFUSED
                        answered += 1
        return answered, refused

    answered, refused = await within(one.space, flood)
    assert 0 < refused < answered, (answered, refused)
    assert await ask(two, "one.hearth") == (Code.OK, [one.address])
    told = len([event for event in scene.events if event.rule == "rate"])
    assert 0 < told <= EVENT_BURST + EVENTS_PER_S * (time.monotonic() - began)


async def test_nonsense_is_answered_or_ignored_and_the_resolver_lives(scene: Stage) -> None:
    one = await scene.guest("sb-1", name="one")

    def shout() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
            for junk in (b"", b"\0", b"\xff" * 600, struct.pack(">HHHHHH", 1, 0, 1, 0, 0, 0) + b"\xc0\x0c\0\1\0\1"):
                datagrams.sendto(junk, GATEWAY)
        with socket.create_connection(GATEWAY) as stream:
            stream.sendall(b"\xff\xff" + b"x" * 100)

    await within(one.space, shout)
    assert await ask(one, "one.hearth") == (Code.OK, [one.address])


async def test_more_addresses_than_a_machine_may_open_by_name_are_not_answered(scene: Stage) -> None:
    await nameserver(scene, TABLE)
    guest = await scene.guest("sb-1", policy=parse_policy({"names": ["*.example.com"]}))
    connection = scene.network.fabric.connection("sb-1")
    for start in range(0, MOST_NAMED_ADDRESSES, 1024):
        many = {IPv4Address(0x14000000 + start + number): 300 for number in range(1024)}
        connection.bind("many.example.com", many)
    assert await ask(guest, "api.example.com") == (Code.FAILURE, [])
    assert await guest.dial("1.2.3.4") == "refused"


async def test_audit_lets_the_world_through_and_gives_the_shortest_list_for_what_it_saw(scene: Stage) -> None:
    await nameserver(scene, TABLE)
    guest = await scene.guest("sb-1", policy=parse_policy({"audit": True}))
    await ask(guest, "api.example.com")
    await ask(guest, "many.example.com", by_stream=True)  # asked, never called
    assert await guest.dial("1.2.3.4") == "world 1.2.3.4"
    assert await guest.dial("9.9.9.9") == "world 9.9.9.9"
    assert await guest.dial(INSIDE[0]) == "refused", "audit opens nothing private"
    await scene.event(lambda each: each.kind is EventKind.SEEN and str(each.address) == "9.9.9.9")
    policy = minimal_policy(scene.events, scene.network.fabric.connection("sb-1").policy)
    assert (policy.base, policy.audit) == (Base.DENY, False)
    # The last name that led to an address stands for it.
    assert policy.names in (("api.example.com",), ("many.example.com",))
    assert policy.networks == (IPv4Network("9.9.9.9/32"),)
    await scene.network.fabric.apply("sb-1", policy)
    assert await guest.dial("9.9.9.9") == "world 9.9.9.9"
    assert await guest.dial("8.8.8.8") == "refused"


async def test_a_restarted_daemon_finds_policy_names_and_connections_as_they_were(scene: Stage) -> None:
    server = await nameserver(scene, TABLE)
    policy = parse_policy({"names": ["api.example.com"]})
    guest = await scene.guest("sb-1", policy=policy, name="one")
    await ask(guest, "api.example.com")
    line = await call(guest, "1.2.3.4", scene.stack)
    await scene.network.fabric.close()
    assert await asyncio.to_thread(line.echo) == "ping", "a daemon that ends cuts nothing"
    again = MachineNetwork(scene.tag, fabric=scene.settings)
    await again.fabric.open()
    try:
        assert str(await again.fabric.adopt("sb-1", name="one", policy=policy)) == guest.address
        assert await asyncio.to_thread(line.echo) == "ping"
        assert await guest.dial("1.2.3.4") == "world 1.2.3.4", "what was bound still is"
        assert await ask(guest, "one.hearth") == (Code.OK, [guest.address])
        assert await ask(guest, "api.example.com") == (Code.OK, ["1.2.3.4"])
        assert len(server.asked) == 2
        await again.fabric.apply("sb-1", DEFAULT)
        assert await asyncio.to_thread(line.echo) == "ECONNRESET"
    finally:
        await again.teardown("sb-1")
        await again.fabric.close()


async def test_a_restarted_daemon_with_another_policy_closes_what_that_denies(scene: Stage) -> None:
    guest = await scene.guest("sb-1", policy=EVERYTHING)
    line = await call(guest, "1.2.3.4", scene.stack)
    await scene.network.fabric.close()
    again = MachineNetwork(scene.tag, fabric=scene.settings)
    await again.fabric.open()
    try:
        await again.fabric.adopt("sb-1", name="one", policy=DEFAULT)
        assert await asyncio.to_thread(line.echo) == "ECONNRESET"
    finally:
        await again.teardown("sb-1")
        await again.fabric.close()


async def test_names_have_ipv4_addresses_alone_and_private_ones_are_asked_of_nobody(scene: Stage) -> None:
    server = await nameserver(scene, TABLE)
    guest = await scene.guest("sb-1", policy=EVERYTHING)
    assert await ask(guest, "api.example.com", Kind.AAAA) == (Code.OK, [])
    assert await ask(guest, "api.example.com", Kind.HTTPS) == (Code.OK, [])
    assert await ask(guest, "1.0.64.100.in-addr.arpa", Kind.PTR) == (Code.NO_NAME, [])
    assert server.asked == []
