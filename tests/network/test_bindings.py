from __future__ import annotations

from ipaddress import IPv4Address

from hearth.network.bindings import LONGEST_S, MOST_ADDRESSES, MOST_NAMES, SHORTEST_S, Bindings
from hearth.network.policy import PUBLIC, parse_policy

ONE, TWO = IPv4Address("1.2.3.4"), IPv4Address("1.2.3.5")
API = parse_policy({"names": ["api.example.com"]})


def test_times_are_bounded_both_ways() -> None:
    bound = Bindings().add("api.example.com", {ONE: 1, TWO: 999_999}, 0.0)
    assert bound == {ONE: SHORTEST_S * 1000, TWO: LONGEST_S * 1000}


def test_an_address_is_open_while_an_answer_for_a_listed_name_holds() -> None:
    bindings = Bindings()
    bindings.add("api.example.com", {ONE: 100}, 0.0)
    bindings.add("other.example.com", {ONE: 500, TWO: 500}, 0.0)
    assert bindings.opened_by(API, 40.0) == {ONE: 60_000}
    assert bindings.opened_by(API, 100.0) == {}
    assert bindings.opened_by(PUBLIC, 0.0) == {}, "an open world needs no names"
    bindings.add("api.example.com", {ONE: 100}, 90.0)
    assert bindings.opened_by(API, 100.0) == {ONE: 90_000}


def test_the_last_name_that_led_to_an_address_names_it() -> None:
    bindings = Bindings()
    bindings.add("a.example.com", {ONE: 60}, 0.0)
    bindings.add("b.example.com", {ONE: 60}, 1.0)
    assert bindings.name_of(ONE) == "b.example.com"
    bindings.add("a.example.com", {ONE: 60}, 2.0)
    assert bindings.name_of(ONE) == "a.example.com"
    assert bindings.name_of(TWO) == ""


def test_a_guest_that_asks_for_everything_fills_nobodys_memory() -> None:
    bindings = Bindings()
    for number in range(MOST_ADDRESSES + 500):
        bindings.add(f"n{number}.example.com", {IPv4Address(number): 60}, 0.0)
    assert bindings.name_of(IPv4Address(499)) == ""
    assert bindings.name_of(IPv4Address(500)) == "n500.example.com"
    for number in range(MOST_NAMES * 3):
        bindings.add(f"n{number}.example.com", {ONE: 60}, 0.0)
    first = parse_policy({"names": ["n0.example.com"]})
    assert ONE not in bindings.opened_by(first, 0.0)
