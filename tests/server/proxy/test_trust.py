"""Whose word about clients counts: hostile headers, from trusted proxies and from others."""

from __future__ import annotations

from typing import Any

import pytest

from hearth.errors import InvalidInput
from hearth.server.proxy.trust import Header, Origin, Trust, read_networks, read_node, read_pairs

PROXIES = read_networks(["10.0.0.0/8", "2001:db8:1::/48"])


def scope(peer: str | None, *fields: tuple[str, str], scheme: str = "http") -> dict[str, Any]:
    headers = [(name.encode(), value.encode("latin-1")) for name, value in fields]
    return {"client": None if peer is None else (peer, 4711), "scheme": scheme, "headers": headers}


def origin(peer: str | None, *fields: tuple[str, str], header: Header = "x-forwarded-for") -> Origin:
    return Trust(networks=PROXIES, header=header).origin(scope(peer, *fields))


XFF, XFP, FWD = "x-forwarded-for", "x-forwarded-proto", "forwarded"


@pytest.mark.parametrize("header", ["x-forwarded-for", "forwarded"])
def test_what_strangers_tell_counts_for_nothing(header: Header) -> None:
    fields = ((XFF, "1.1.1.1"), (XFP, "https"), (FWD, "for=1.1.1.1;proto=https"))
    stranger = origin("198.51.100.7", *fields, header=header)
    assert stranger == Origin(client="198.51.100.7", scheme="http")
    assert origin(None, *fields, header=header) == Origin(client=None, scheme="http")
    nobody = Trust(header=header).origin(scope("10.0.0.1", *fields))
    assert nobody == Origin(client="10.0.0.1", scheme="http"), "without a word nobody is trusted"


@pytest.mark.parametrize(
    ("told", "client"),
    [
        (["203.0.113.9"], "203.0.113.9"),
        (["203.0.113.9:5555"], "203.0.113.9"),
        (["[2001:db8:9::1]:443"], "2001:db8:9::1"),
        (["2001:db8:9::1"], "2001:db8:9::1"),
        (["::ffff:203.0.113.9"], "203.0.113.9"),
        (["1.1.1.1, 203.0.113.9"], "203.0.113.9"),  # the left one is the client's own invention
        (["1.1.1.1", "203.0.113.9"], "203.0.113.9"),  # in two fields
        (["203.0.113.9, 10.0.0.7, 2001:db8:1::5"], "203.0.113.9"),  # three proxies in a row
        (["10.0.0.9"], "10.0.0.9"),  # somebody inside
        (["10.0.0.9, 10.0.0.8"], "10.0.0.9"),
        ([], "10.0.0.1"),
        ([""], "10.0.0.1"),
        (["unknown"], "10.0.0.1"),
        (["1.1.1.1, unknown, 10.0.0.7"], "10.0.0.7"),  # what came before nonsense is hearsay
        (["1.1.1.1, <script>, 10.0.0.7"], "10.0.0.7"),
        (["203.0.113.9\t"], "203.0.113.9"),
        (["203.0.113.9,"], "10.0.0.1"),
        (["203.0.113.9%eth0"], "10.0.0.1"),
        (["fe80::1%eth0"], "10.0.0.1"),
        (["0203.0.113.9"], "10.0.0.1"),
        (["203.0.113.999"], "10.0.0.1"),
        (["\xff\xfe"], "10.0.0.1"),
        (["1.1.1.1," * 5000 + "203.0.113.9"], "203.0.113.9"),
    ],
)
def test_the_rightmost_address_that_is_no_proxys_is_the_clients(told: list[str], client: str) -> None:
    assert origin("10.0.0.1", *((XFF, value) for value in told)).client == client


@pytest.mark.parametrize(
    ("told", "found"),
    [
        (["for=203.0.113.9;proto=https"], ("203.0.113.9", "https")),
        (['For="[2001:db8:9::1]:443";PROTO=HTTPS;by=10.0.0.1'], ("2001:db8:9::1", "https")),
        (["for=1.1.1.1;proto=https, for=203.0.113.9"], ("203.0.113.9", "http")),
        (["for=203.0.113.9;proto=https, for=10.0.0.7"], ("203.0.113.9", "https")),
        (['for="', "for=203.0.113.9"], ("203.0.113.9", "http")),  # a quote left open reaches nobody else
        (["for=_hidden;proto=https"], ("10.0.0.1", "http")),
        (["for=unknown"], ("10.0.0.1", "http")),
        (["for=203.0.113.9;for=1.1.1.1"], ("10.0.0.1", "http")),
        (["for=203.0.113.9;proto=gopher"], ("203.0.113.9", "http")),
        (["proto=https"], ("10.0.0.1", "http")),
        (["for"], ("10.0.0.1", "http")),
        ([], ("10.0.0.1", "http")),
    ],
)
def test_forwarded_is_read_where_the_proxies_write_it(told: list[str], found: tuple[str, str]) -> None:
    fields = [(FWD, value) for value in told]
    assert origin("10.0.0.1", *fields, (XFF, "6.6.6.6"), (XFP, "https"), header="forwarded") == Origin(
        client=found[0], scheme=found[1]
    )


def test_the_header_that_the_proxies_do_not_write_is_the_clients_and_counts_for_nothing() -> None:
    told = origin("10.0.0.1", (FWD, "for=6.6.6.6;proto=https"), (XFF, "203.0.113.9"))
    assert told == Origin(client="203.0.113.9", scheme="http")


@pytest.mark.parametrize(
    ("told", "scheme"),
    [("https", "https"), ("HTTPS", "https"), ("http, https", "https"), ("https, http", "http"), ("javascript", "http")],
)
def test_the_scheme_is_what_the_nearest_proxy_says(told: str, scheme: str) -> None:
    assert origin("10.0.0.1", (XFP, told), (XFF, "203.0.113.9")).scheme == scheme
    assert origin("203.0.113.9", (XFP, told)).scheme == "http"


@pytest.mark.parametrize("text", ["", "10.0.0.1/8", "example.org", "0.0.0.0/0", "::/0", "10.0.0.0/33"])
def test_networks_that_are_none_or_everybody_are_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="trusted-proxy"):
        read_networks([text])


def test_nodes_and_pairs_are_read_or_refused() -> None:
    assert read_node("[::1]") == read_node("::1")
    assert [read_node(text) for text in ("", "[]", "[1.2.3.4]:x", "1.2.3.4:", "[::1", ":80")] == [None] * 6
    assert read_pairs('a=b;C="d e"') == {"a": "b", "c": "d e"}
    assert [read_pairs(text) for text in ("", "a", "a=", 'a="', 'a="\\"', "a=b;;", "a=b;A=c")] == [None] * 7
