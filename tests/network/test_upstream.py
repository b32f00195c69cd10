"""Asking the world, against servers on the loopback that answer late, badly or not at all."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import AsyncIterator
from ipaddress import IPv4Address

import pytest
from tests.network.nameserver import Nameserver, serve

from hearth.errors import InvalidInput
from hearth.network import dns
from hearth.network.dns import HEADER, Code, Kind, Question, encode_name
from hearth.network.upstream import MOST_ANSWERS, Memory, NoAnswer, Server, Upstream, parse_server, servers_in

ONE = IPv4Address("1.2.3.4")


def wire(name: str, kind: int = Kind.A) -> bytes:
    return encode_name(name) + struct.pack(">HH", kind, 1)


@pytest.fixture
async def stack() -> AsyncIterator[contextlib.AsyncExitStack]:
    async with contextlib.AsyncExitStack() as made:
        yield made


async def start(server: Nameserver, stack: contextlib.AsyncExitStack) -> Server:
    return await serve(server, None, ("127.0.0.1", 0), stack)


async def test_an_answer_comes_from_the_first_server_that_has_one(stack: contextlib.AsyncExitStack) -> None:
    failing = Nameserver(table={}, mangle=lambda question, _: [dns.answer(question, Code.FAILURE)])
    good = Nameserver(table={"a.example.com": ["1.2.3.4"]})
    upstream = Upstream([await start(failing, stack), await start(good, stack)])
    assert (await upstream.ask(wire("a.example.com"))).addresses("a.example.com") == {ONE: 300}
    assert failing.asked == good.asked == [("a.example.com", 1)]


async def test_what_is_not_the_answer_to_this_question_is_not_taken(stack: contextlib.AsyncExitStack) -> None:
    def forge(question: Question, right: bytes) -> list[bytes]:
        wrong = dns.answer(question, Code.OK, [IPv4Address("6.6.6.6")], ttl_s=9)
        other = bytearray(wrong)
        other[HEADER.size + 1] ^= 1  # another name
        number = struct.pack(">H", question.identity ^ 1) + wrong[2:]
        return [number, bytes(other), b"", b"\xff" * 40, wrong[:20], right]

    server = Nameserver(table={"a.example.com": ["1.2.3.4"]}, mangle=forge)
    upstream = Upstream([await start(server, stack)])
    assert (await upstream.ask(wire("a.example.com"))).addresses("a.example.com") == {ONE: 300}


async def test_a_cut_answer_is_fetched_whole_by_stream(stack: contextlib.AsyncExitStack) -> None:
    server = Nameserver(table={"many.example.com": [f"1.2.3.{number}" for number in range(1, 120)]})
    upstream = Upstream([await start(server, stack)])
    assert len((await upstream.ask(wire("many.example.com"))).answers) == 119
    assert len(server.asked) == 2


async def test_nobody_answering_is_an_error(stack: contextlib.AsyncExitStack) -> None:
    with pytest.raises(NoAnswer):
        await Upstream([]).ask(wire("a.example.com"))
    server = Nameserver(table={}, mangle=lambda question, _: [dns.answer(question, Code.REFUSED)])
    with pytest.raises(NoAnswer):
        await Upstream([await start(server, stack), ("127.0.0.1", 1)]).ask(wire("a.example.com"))


def answer(name: str, ttl_s: int, *, code: Code = Code.OK) -> dns.Answer:
    question = dns.parse_question(HEADER.pack(1, 0, 1, 0, 0, 0) + wire(name))
    return dns.parse_answer(dns.answer(question, code, [ONE] if code is Code.OK else [], ttl_s=ttl_s))


def test_answers_are_kept_while_they_hold_and_a_failure_is_not() -> None:
    memory = Memory()
    memory.put("a.example.com", 1, answer("a.example.com", 60), 100.0)
    memory.put("b.example.com", 1, answer("b.example.com", 0), 100.0)
    memory.put("c.example.com", 1, answer("c.example.com", 60, code=Code.FAILURE), 100.0)
    kept = memory.get("a.example.com", 1, 159.0)
    assert kept is not None
    assert kept.came_s == 100.0
    assert memory.get("a.example.com", 1, 160.0) is None
    assert memory.get("a.example.com", 28, 100.0) is None
    assert memory.get("b.example.com", 1, 100.0) is None
    assert memory.get("c.example.com", 1, 100.0) is None


def test_the_memory_is_bounded_and_forgets_the_least_used() -> None:
    memory = Memory()
    for number in range(MOST_ANSWERS):
        memory.put(f"n{number}", 1, answer(f"n{number}", 60), 0.0)
    memory.get("n0", 1, 1.0)
    memory.put("late", 1, answer("late", 60), 1.0)
    assert memory.get("n0", 1, 1.0) is not None
    assert memory.get("n1", 1, 1.0) is None


def test_the_hosts_own_services_are_no_servers() -> None:
    text = "# made by hand\nnameserver 127.0.0.53\nnameserver 192.0.2.7\nnameserver ::1\nnameserver 0.0.0.0\nsearch x\n"
    assert servers_in(text) == [("192.0.2.7", 53)]


@pytest.mark.parametrize("text", ["", "dns.example.com", "192.0.2.1:0", "192.0.2.1:x", "::1", "192.0.2.1:70000"])
def test_a_server_that_cannot_be_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_server(text)
    assert caught.value.field == "dns_servers"


def test_a_server_has_a_port() -> None:
    assert (parse_server("192.0.2.1"), parse_server("192.0.2.1:5353")) == (("192.0.2.1", 53), ("192.0.2.1", 5353))
