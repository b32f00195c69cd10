from __future__ import annotations

import struct
from ipaddress import IPv4Address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hearth.network import dns
from hearth.network.dns import HEADER, RECORD, Code, Kind, Malformed, Question, encode_name

ONE = IPv4Address("1.2.3.4")


def asked(name: str = "www.example.com", kind: int = Kind.A, *, tail: bytes = b"", additional: int = 0) -> bytes:
    return HEADER.pack(7, 0x0100, 1, 0, 0, additional) + encode_name(name) + struct.pack(">HH", kind, 1) + tail


def question(name: str = "www.example.com", kind: int = Kind.A) -> Question:
    return dns.parse_question(asked(name, kind))


def record(owner: bytes, kind: int, data: bytes, ttl_s: int = 300) -> bytes:
    return owner + RECORD.pack(kind, 1, ttl_s, len(data)) + data


def answered(*records: bytes, authority: tuple[bytes, ...] = (), additional: tuple[bytes, ...] = ()) -> bytes:
    head = HEADER.pack(9, 0x8180, 1, len(records), len(authority), len(additional))
    return head + question().wire + b"".join((*records, *authority, *additional))


def test_a_question_is_read_whatever_its_case() -> None:
    read = dns.parse_question(asked("WwW.Example.COM"))
    assert (read.identity, read.name, read.kind, read.recursion_desired) == (7, "www.example.com", 1, True)
    assert b"WwW" in read.wire


@pytest.mark.parametrize(("said", "taken"), [(100, 512), (512, 512), (1232, 1232), (65_535, 1232)])
def test_how_large_a_datagram_the_asker_takes(said: int, taken: int) -> None:
    opt = b"\0" + RECORD.pack(Kind.OPT, said, 0, 0)
    assert dns.parse_question(asked(tail=opt, additional=1)).size_limit == taken


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\0" * 11,
        HEADER.pack(1, 0x8000, 1, 0, 0, 0) + b"\0\0\1\0\1",
        HEADER.pack(1, 0x2800, 1, 0, 0, 0) + b"\0\0\1\0\1",
        HEADER.pack(1, 0, 0, 0, 0, 0),
        HEADER.pack(1, 0, 2, 0, 0, 0) + b"\0\0\1\0\1" * 2,
        HEADER.pack(1, 0, 1, 1, 0, 0) + b"\0\0\1\0\1",
        HEADER.pack(1, 0, 1, 0, 0, 0) + b"\0\0\1\0",
        HEADER.pack(1, 0, 1, 0, 0, 0) + b"\0\0\1\0\3",
        HEADER.pack(1, 0, 1, 0, 0, 0) + b"\x05abc",
        HEADER.pack(1, 0, 1, 0, 0, 0) + b"\xc0\x0c\0\1\0\1",
        HEADER.pack(1, 0, 1, 0, 0, 0) + b"\xc0",
        HEADER.pack(1, 0, 1, 0, 0, 0) + b"\x40abc\0\0\1\0\1",
        HEADER.pack(1, 0, 1, 0, 0, 0) + b"\x3f" * 320,
    ],
)
def test_what_is_no_plain_question_is_malformed(message: bytes) -> None:
    with pytest.raises(Malformed):
        dns.parse_question(message)


def test_two_names_never_look_the_same() -> None:
    dotted = HEADER.pack(1, 0, 1, 0, 0, 0) + b"\x0bwww.example\x03com\0\0\1\0\1"
    assert dns.parse_question(dotted).name == "www\\046example.com"


def test_addresses_are_those_the_name_leads_to_by_its_aliases_and_no_others() -> None:
    alias = encode_name("cdn.example.net")
    message = answered(
        record(b"\xc0\x0c", Kind.CNAME, alias),
        record(alias, Kind.A, ONE.packed, 60),
        record(encode_name("stranger.example.org"), Kind.A, b"\x06\6\6\6"),
    )
    found = dns.parse_answer(message)
    assert found.addresses("www.example.com") == {ONE: 60}
    assert found.addresses("nobody.example.com") == {}


def test_aliases_in_a_circle_lead_nowhere() -> None:
    there = encode_name("b.example.com")
    back = record(there, Kind.CNAME, b"\xc0\x0c")
    assert dns.parse_answer(answered(record(b"\xc0\x0c", Kind.CNAME, there), back)).addresses("www.example.com") == {}


def test_an_answer_is_handed_on_without_its_additional_section_and_grown_older() -> None:
    message = answered(
        record(b"\xc0\x0c", Kind.A, ONE.packed, 60),
        authority=(record(b"\xc0\x10", 2, encode_name("ns.example.com"), 30),),
        additional=(record(encode_name("ns.example.com"), Kind.A, b"\x0a\0\0\1"), b"\0" + RECORD.pack(41, 4096, 0, 0)),
    )
    relayed = dns.relay(question("WWW.example.com"), dns.parse_answer(message), age_s=45)
    read = dns.parse_answer(relayed)
    assert read.identity == 7
    assert [each.ttl_s for each in read.records] == [15, 0]
    assert struct.unpack_from(">H", relayed, 10) == (0,)
    assert b"\x0a\0\0\1" not in relayed
    assert b"WWW" in relayed


def test_our_own_answers_can_be_read() -> None:
    mine = dns.parse_answer(dns.answer(question(), Code.OK, [ONE], ttl_s=5))
    assert mine.addresses("www.example.com") == {ONE: 5}
    assert dns.parse_answer(dns.answer(question(), Code.REFUSED)).code == Code.REFUSED
    named = dns.parse_answer(dns.pointer(question("4.3.2.1.in-addr.arpa", Kind.PTR), "web.hearth", ttl_s=5))
    assert named.answers[0].kind == Kind.PTR


def test_what_does_not_fit_is_cut_and_says_so() -> None:
    long = dns.answer(question(), Code.OK, [IPv4Address(number) for number in range(100)])
    short = dns.truncate(question(), long)
    assert len(short) <= dns.PLAIN_UDP_BYTES
    assert dns.parse_answer(short).is_truncated


@pytest.mark.parametrize(
    ("name", "address"),
    [
        ("4.3.2.1.in-addr.arpa", "1.2.3.4"),
        ("3.2.1.in-addr.arpa", None),
        ("999.3.2.1.in-addr.arpa", None),
        ("x.3.2.1.in-addr.arpa", None),
        ("4.3.2.1.example.com", None),
    ],
)
def test_which_address_a_name_asks_about(name: str, address: str | None) -> None:
    assert dns.reversed_address(name) == (None if address is None else IPv4Address(address))


@settings(max_examples=500, deadline=None)
@given(st.binary(max_size=600))
def test_no_bytes_break_the_readers(message: bytes) -> None:
    for read in (dns.parse_question, dns.parse_answer):
        try:
            read(message)
        except Malformed:
            continue
    refusal = dns.refusal_of(message)
    assert refusal is None or len(refusal) == HEADER.size


@settings(max_examples=500, deadline=None)
@given(st.binary(max_size=80), st.integers(min_value=0, max_value=79), st.binary(min_size=1, max_size=3))
def test_no_damage_to_an_answer_breaks_its_way_to_the_guest(tail: bytes, at: int, damage: bytes) -> None:
    message = bytearray(answered(record(b"\xc0\x0c", Kind.A, ONE.packed), authority=(record(b"\xc0\x10", 6, tail),)))
    place = HEADER.size + at % (len(message) - HEADER.size)
    message[place : place + len(damage)] = damage
    try:
        found = dns.parse_answer(bytes(message))
    except Malformed:
        return
    if found.question == question().wire:
        again = dns.parse_answer(dns.relay(question(), found, age_s=1))
        assert len(again.records) == len(found.records)
