from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv4Network

import pytest

from hearth.network import answers, dns
from hearth.network.answers import Household
from hearth.network.dns import HEADER, RECORD, Code, Kind, Question, encode_name
from hearth.network.policy import CLOSED, DEFAULT, PUBLIC, Base, Policy, parse_policy

HOME = Household(addresses={"web": IPv4Address("100.64.0.5"), "db": IPv4Address("100.64.0.6")})
LISTED = parse_policy({"names": ["*.example.com"]})
AUDITED = Policy(audit=True)
WORLD = None


def question(name: str, kind: int) -> Question:
    wire = encode_name(name) + struct.pack(">HH", kind, 1)
    return dns.parse_question(HEADER.pack(7, 0x0100, 1, 0, 0, 0) + wire)


TABLE: list[tuple[str, str, int, Policy, tuple[int, list[str], str | None] | None]] = [
    ("a neighbour", "web.hearth", Kind.A, DEFAULT, (Code.OK, ["100.64.0.5"], None)),
    ("a neighbour, short", "db", Kind.A, DEFAULT, (Code.OK, ["100.64.0.6"], None)),
    ("a neighbour in IPv6", "web.hearth", Kind.AAAA, DEFAULT, (Code.OK, [], None)),
    ("nobody of ours", "mail.hearth", Kind.A, PUBLIC, (Code.NO_NAME, [], None)),
    ("the zone itself", "hearth", Kind.A, DEFAULT, (Code.OK, [], None)),
    ("a neighbour of one kept apart", "web.hearth", Kind.A, CLOSED, (Code.NO_NAME, [], None)),
    ("its own loopback", "localhost", Kind.A, CLOSED, (Code.OK, ["127.0.0.1"], None)),
    ("the world, closed", "www.example.com", Kind.A, DEFAULT, (Code.REFUSED, [], "name")),
    ("the world, closed, other type", "www.example.com", 16, DEFAULT, (Code.REFUSED, [], "name")),
    ("the world, open", "www.example.com", Kind.A, PUBLIC, WORLD),
    ("the world, audited", "www.example.com", Kind.A, AUDITED, WORLD),
    ("the world, listed", "www.example.com", Kind.A, LISTED, WORLD),
    ("the world, not listed", "example.com", Kind.A, LISTED, (Code.REFUSED, [], "name")),
    ("a mail server", "www.example.com", 15, LISTED, WORLD),
    ("the world in IPv6", "www.example.com", Kind.AAAA, PUBLIC, (Code.OK, [], None)),
    ("hints past what is bound", "www.example.com", Kind.HTTPS, LISTED, (Code.OK, [], None)),
    ("everything", "www.example.com", Kind.ANY, PUBLIC, (Code.NOT_IMPLEMENTED, [], None)),
    ("a whole zone", "www.example.com", 252, PUBLIC, (Code.NOT_IMPLEMENTED, [], None)),
    ("a single label of the world", "com", 2, PUBLIC, WORLD),
    ("a private address", "1.0.0.10.in-addr.arpa", Kind.PTR, PUBLIC, (Code.NO_NAME, [], None)),
    ("a public address", "8.8.8.8.in-addr.arpa", Kind.PTR, PUBLIC, WORLD),
    ("a public address, closed", "8.8.8.8.in-addr.arpa", Kind.PTR, DEFAULT, (Code.REFUSED, [], "name")),
]


@pytest.mark.parametrize(("what", "name", "kind", "policy", "expected"), TABLE)
def test_what_becomes_of_a_question(
    what: str, name: str, kind: int, policy: Policy, expected: tuple[int, list[str], str | None] | None
) -> None:
    reply = answers.decide(question(name, kind), policy, HOME)
    if expected is None:
        assert reply is None, what
        return
    assert reply is not None, what
    read = dns.parse_answer(reply.message)
    assert (read.code, [str(each.address) for each in read.answers], reply.rule) == expected, what


def test_a_neighbours_address_has_a_name() -> None:
    reply = answers.decide(question("5.0.64.100.in-addr.arpa", Kind.PTR), DEFAULT, HOME)
    assert reply is not None
    assert reply.message.endswith(encode_name("web.hearth"))


@pytest.mark.parametrize(
    ("address", "networks", "expected"),
    [
        ("1.2.3.4", [], False),
        ("10.1.2.3", [], True),
        ("10.1.2.3", ["10.0.0.0/8"], False),
        ("10.1.2.3", ["10.9.0.0/16"], True),
        ("127.0.0.1", [], True),
        ("100.64.0.5", [], True),
        ("0.0.0.0", [], True),
        ("169.254.169.254", [], True),
    ],
)
def test_an_answer_that_leads_inside(address: str, networks: list[str], expected: bool) -> None:
    record = b"\xc0\x0c" + RECORD.pack(Kind.A, 1, 60, 4) + IPv4Address(address).packed
    message = HEADER.pack(7, 0x8180, 1, 1, 0, 0) + question("x.example.com", Kind.A).wire + record
    policy = Policy(base=Base.PUBLIC, networks=tuple(IPv4Network(each) for each in networks))
    assert answers.points_inside(dns.parse_answer(message), policy) is expected
