from __future__ import annotations

import errno
import secrets
import socket
import struct
import subprocess
from collections.abc import AsyncIterator, Callable
from ipaddress import IPv4Address, IPv4Network
from typing import TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hearth.host import conntrack, namespaces, nft
from hearth.host import nft_expressions as x
from hearth.host.netlink import messages, parse_attributes
from hearth.host.nft import Element, Hook, Policy
from hearth.host.nft_log import LogSocket, parse_packet
from hearth.host.nft_socket import NftSocket

T = TypeVar("T")

TABLE = "t"


@pytest.fixture
async def space() -> AsyncIterator[str]:
    name = f"hearth-test-{secrets.token_hex(4)}"
    await namespaces.create(name, lambda: None, discard=lambda _: None)
    yield name
    await namespaces.delete(name)


def ip(space: str, *words: str) -> None:
    subprocess.run(["ip", "-n", space, *words], check=True)


async def within(space: str, work: Callable[[], T]) -> T:
    return await namespaces.enter(space, work, discard=lambda _: None)


async def commit(space: str, *commands: nft.Command) -> None:
    def work() -> None:
        with NftSocket() as firewall:
            firewall.commit(commands)

    await within(space, work)


def listing(space: str) -> str:
    """What nft, which shares nothing with us, sees in there; one line a rule, without indentation."""
    command = ["ip", "netns", "exec", space, "nft", "-s", "list", "ruleset"]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return "\n".join(line.strip() for line in text.splitlines() if line.strip())


def chain(name: str = "c", *, policy: Policy = Policy.ACCEPT) -> nft.Command:
    return nft.base_chain(TABLE, name, hook=Hook.OUTPUT, priority=0, policy=policy)


RULES: list[tuple[list[bytes], str]] = [
    ([*x.in_link("tap0"), x.drop()], 'iifname "tap0" drop'),
    ([*x.out_link("net0", op=x.NOT_EQUAL), x.accept()], 'oifname != "net0" accept'),
    ([*x.ipv4(), *x.source(IPv4Address("192.0.2.1")), x.leave()], "ip saddr 192.0.2.1 return"),
    ([*x.ipv4(), *x.destination_in(IPv4Network("10.0.0.0/8")), x.drop()], "ip daddr 10.0.0.0/8 drop"),
    ([*x.ipv4(), *x.destination_in_set("s"), x.drop()], "ip daddr @s drop"),
    ([*x.ipv4(), *x.source_in_set("s", inverted=True), x.drop()], "ip saddr != @s drop"),
    ([*x.protocol(socket.IPPROTO_TCP), *x.port(53), x.reset()], "tcp dport 53 reject with tcp reset"),
    ([x.prohibit()], "reject with icmpx admin-prohibited"),
    ([*x.state(x.State.NEW, x.State.INVALID), x.drop()], "ct state invalid,new drop"),
    ([*x.reply(), x.accept()], "ct direction reply accept"),
    ([*x.mark(7), x.accept()], "ct mark 0x00000007 accept"),
    (x.set_mark(7), "ct mark set 0x00000007"),
    ([*x.called_in(IPv4Network("10.0.0.0/8")), x.drop()], "ct original ip daddr 10.0.0.0/8 drop"),
    ([*x.caller_in(IPv4Network("10.0.0.0/8"), op=x.NOT_EQUAL), x.drop()], "ct original ip saddr != 10.0.0.0/8 drop"),
    ([*x.called_in_set("s"), x.drop()], "ct original ip daddr @s drop"),
    ([x.more_connections_than(9), x.drop()], "ct count over 9 drop"),
    ([x.limit(20, 40), x.accept()], "limit rate 20/second burst 40 packets accept"),
    ([x.log(3, "why")], 'log prefix "why" group 3 snaplen 64 queue-threshold 1'),
    ([x.jump("other")], "jump other"),
    ([x.goto("other")], "goto other"),
]


@pytest.mark.root
async def test_the_kernel_holds_what_the_rules_say(space: str) -> None:
    await commit(
        space,
        *nft.fresh_table(TABLE, comment="made by a test"),
        nft.new_set(TABLE, "s", nft.ADDRESS_KEY),
        nft.chain(TABLE, "other"),
        chain(),
        *(nft.rule(TABLE, "c", *expressions) for expressions, _ in RULES),
    )
    seen = listing(space).splitlines()
    assert 'comment "made by a test"' in seen
    start = seen.index("type filter hook output priority filter; policy accept;") + 1
    assert seen[start : start + len(RULES)] == [text for _, text in RULES]


@pytest.mark.root
async def test_sets_of_networks_links_and_pairs(space: str) -> None:
    networks = [IPv4Network("10.0.0.0/8"), IPv4Network("192.0.2.1/32"), IPv4Network("224.0.0.0/3")]
    await commit(
        space,
        nft.table(TABLE),
        nft.new_set(TABLE, "n", nft.ADDRESS_KEY, flags=nft.SET_INTERVAL, identity=1),
        nft.new_set(TABLE, "l", nft.LINK_KEY, identity=2),
        nft.new_set(TABLE, "p", nft.LINK_PAIR_KEY, flags=nft.SET_CONCAT, identity=3),
        nft.new_set(TABLE, "t", nft.ADDRESS_KEY, flags=nft.SET_TIMEOUT, identity=4),
        *nft.add_elements(TABLE, "n", nft.ranges(networks)),
        *nft.add_elements(TABLE, "l", [Element(key=nft.link_key("b1"))]),
        *nft.add_elements(TABLE, "p", [Element(key=nft.link_key("b1", "b2"))]),
        *nft.add_elements(TABLE, "t", [Element(key=IPv4Address("1.2.3.4").packed, timeout_ms=60_000)]),
    )
    seen = " ".join(listing(space).split())
    assert "elements = { 10.0.0.0/8, 192.0.2.1, 224.0.0.0/3 }" in seen
    assert 'elements = { "b1" }' in seen
    assert 'elements = { "b1" . "b2" }' in seen
    assert "1.2.3.4 timeout 1m" in seen


@pytest.mark.root
async def test_thousands_of_elements_go_in_one_transaction(space: str) -> None:
    addresses = [IPv4Address(f"1.{number >> 8}.{number & 255}.1") for number in range(20_000)]

    def work() -> set[bytes]:
        with NftSocket() as firewall:
            elements = [Element(key=address.packed) for address in addresses]
            made = [nft.table(TABLE), nft.new_set(TABLE, "s", nft.ADDRESS_KEY)]
            firewall.commit([*made, *nft.add_elements(TABLE, "s", elements)])
            return firewall.keys(TABLE, "s")

    assert await within(space, work) == {address.packed for address in addresses}


@pytest.mark.root
async def test_a_refused_transaction_changes_nothing_and_names_what_was_refused(space: str) -> None:
    await commit(space, nft.table(TABLE), chain(), nft.rule(TABLE, "c", x.accept()))
    before = listing(space)
    for bad in (nft.rule(TABLE, "nowhere", x.accept()), nft.rule(TABLE, "c", *x.destination_in_set("nothing"))):
        with pytest.raises(OSError, match="rule in") as caught:
            await commit(space, *nft.fresh_table(TABLE), chain(policy=Policy.DROP), bad, nft.chain(TABLE, "late"))
        assert caught.value.errno == errno.ENOENT
        assert listing(space) == before
    await commit(space)
    assert listing(space) == before


@pytest.mark.root
async def test_a_table_is_replaced_whole_and_others_are_left_alone(space: str) -> None:
    await commit(space, nft.table("theirs"), nft.table(TABLE), chain(), nft.rule(TABLE, "c", x.accept()))
    for _ in range(3):
        await commit(space, *nft.fresh_table(TABLE, comment="new"), chain(), nft.rule(TABLE, "c", x.drop()))
    assert listing(space).count("drop") == 1
    assert "table inet theirs" in listing(space)

    def comments() -> list[str | None]:
        with NftSocket() as firewall:
            return [firewall.comment(name) for name in (TABLE, "theirs", "nobodys")]

    assert await within(space, comments) == ["new", "", None]
    await commit(space, nft.delete_table(TABLE))
    assert TABLE not in listing(space).split()
    with pytest.raises(FileNotFoundError):
        await commit(space, nft.delete_table(TABLE))


@pytest.mark.root
async def test_what_a_rule_tells_is_heard_in_its_namespace(space: str) -> None:
    ip(space, "link", "set", "lo", "up")
    rule = nft.rule(TABLE, "c", *x.protocol(socket.IPPROTO_UDP), x.log(3, "udp seen"), x.drop())
    await commit(space, nft.table(TABLE), chain(), rule)

    def work() -> list[tuple[int, str, str, int, int]]:
        log = LogSocket(3, 4)
        with pytest.raises(OSError, match="log group 3"):
            LogSocket(3)
        try:
            assert log.read() == []
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams, pytest.raises(PermissionError):
                datagrams.sendto(b"x" * 500, ("127.0.0.9", 4000))
            return [
                (each.group, each.prefix, str(each.destination), each.protocol, each.destination_port)
                for each in log.read()
            ]
        finally:
            log.close()

    assert await within(space, work) == [(3, "udp seen", "127.0.0.9", socket.IPPROTO_UDP, 4000)]


@pytest.mark.parametrize(
    "payload", [b"", b"\0\0", b"\0\0\0\3", b"\0\0\0\3" + struct.pack("=HH", 3, 9), struct.pack("=HH", 200, 9) * 3]
)
def test_a_log_message_without_a_packet_is_none(payload: bytes) -> None:
    assert parse_packet(payload) is None


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=120))
def test_no_packet_of_a_guest_breaks_the_reader(packet: bytes) -> None:
    message = struct.pack(">BBH", 2, 0, 5) + struct.pack("=HH", 4 + len(packet), 9) + packet
    found = parse_packet(message)
    assert found is None or len(packet) >= 20
    for _, _, payload in messages(packet):
        assert len(list(parse_attributes(payload))) <= len(payload)


def test_ports_of_a_later_fragment_are_not_guessed() -> None:
    head = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 40, 1, 100, 64, 17, 0, bytes(4), bytes(4))
    packet = head + b"\1\2\3\4"
    message = struct.pack(">BBH", 2, 0, 5) + struct.pack("=HH", 4 + len(packet), 9) + packet
    found = parse_packet(message)
    assert found is not None
    assert (found.group, found.source_port, found.destination_port) == (5, 0, 0)


@pytest.mark.root
async def test_connections_of_one_address_are_forgotten_and_the_others_are_not(space: str) -> None:
    ip(space, "link", "set", "lo", "up")
    ip(space, "addr", "add", "192.0.2.1/32", "dev", "lo")
    mark = nft.rule(TABLE, "c", *x.ipv4(), *x.protocol(socket.IPPROTO_UDP), *x.mark_by_source())
    await commit(space, nft.table(TABLE), chain(), mark)

    def work() -> list[bool]:
        with (
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as two,
        ):
            one.bind(("192.0.2.1", 0))
            one.sendto(b"x", ("127.0.0.1", 4000))
            two.bind(("127.0.0.3", 0))
            two.sendto(b"x", ("127.0.0.1", 4000))
        tracking = conntrack.ConntrackSocket()
        try:
            seen = [held("src=192.0.2.1"), held("src=127.0.0.3")]
            tracking.forget(IPv4Address("192.0.2.1"))
            tracking.forget(IPv4Address("192.0.2.9"))
            return [*seen, held("src=192.0.2.1"), held("src=127.0.0.3")]
        finally:
            tracking.close()

    def held(words: str) -> bool:
        with open("/proc/thread-self/net/nf_conntrack") as file:
            return words in file.read()

    assert await within(space, work) == [True, True, False, True]


def test_the_request_to_forget_is_the_bytes_of_the_kernels_headers() -> None:
    expected = "24000000 0201 0500 01000000 00000000 02 00 0000 0800 0800 05004064 0800 1500 ffffffff"
    assert conntrack.forget_message(IPv4Address("100.64.0.5")) == bytes.fromhex(expected.replace(" ", ""))


def test_a_transaction_is_framed_as_the_kernel_wants_it() -> None:
    encoded = nft.table("t").encode(2)
    assert encoded == bytes.fromhex("1c000000000a0104020000000000000001000000060001007400 0000".replace(" ", ""))


@pytest.mark.parametrize(
    ("networks", "keys"),
    [
        (["10.0.0.0/8"], [("10.0.0.0", False), ("11.0.0.0", True)]),
        (["224.0.0.0/3"], [("224.0.0.0", False)]),
        (
            ["10.0.0.1/32", "9.0.0.0/8"],
            [("9.0.0.0", False), ("10.0.0.0", True), ("10.0.0.1", False), ("10.0.0.2", True)],
        ),
        ([], []),
    ],
)
def test_networks_are_ranges_from_a_start_to_before_an_end(networks: list[str], keys: list[tuple[str, bool]]) -> None:
    elements = nft.ranges(IPv4Network(each) for each in networks)
    assert [(str(IPv4Address(each.key)), each.is_end) for each in elements] == keys
