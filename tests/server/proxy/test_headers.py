"""What changes in heads, by table."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hearth.server.proxy.headers import (
    HOP_BY_HOP,
    Route,
    location,
    query_without,
    request_headers,
    response_headers,
    trailers,
    upgrade_of,
    without_parameter,
)

ROUTE = Route(scheme=b"https", host=b"web.example.org", prefix=b"/p/web", port=3000, client="203.0.113.9")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (b"http://localhost:3000/a?b", b"https://web.example.org/p/web/a?b"),
        (b"http://127.0.0.1:3000/", b"https://web.example.org/p/web/"),
        (b"http://localhost:3000", b"https://web.example.org/p/web/"),
        (b"http://localhost:3000?x", b"https://web.example.org/p/web/?x"),
        (b"http://localhost:30000/a", b"http://localhost:30000/a"),
        (b"http://localhost:3000.evil.example/a", b"http://localhost:3000.evil.example/a"),
        (b"https://elsewhere.example/a", b"https://elsewhere.example/a"),
        (b"/a", b"/p/web/a"),
        (b"//elsewhere.example/a", b"//elsewhere.example/a"),
        (b"a/b", b"a/b"),
        (b"", b""),
    ],
)
def test_locations_that_lead_to_the_server_lead_there_from_outside(given: bytes, expected: bytes) -> None:
    assert location(given, ROUTE) == expected


def test_an_origin_that_is_the_servers_own_stays_its_own() -> None:
    for value, expected in (
        (b"https://web.example.org", b"http://localhost:3000"),
        (b"HTTPS://WEB.example.org", b"http://localhost:3000"),
        (b"https://evil.example", b"https://evil.example"),
        (b"http://web.example.org", b"http://web.example.org"),
        (b"null", b"null"),
    ):
        assert (b"origin", expected) in request_headers([(b"origin", value)], ROUTE, upgrade=None)


def test_the_client_is_named_by_us_alone() -> None:
    headers = request_headers([(b"x-forwarded-for", b"1.1.1.1"), (b"x-forwarded-host", b"x")], ROUTE, upgrade=None)
    assert headers == [
        (b"host", b"localhost:3000"),
        (b"x-forwarded-for", b"203.0.113.9"),
        (b"x-forwarded-host", b"web.example.org"),
        (b"x-forwarded-proto", b"https"),
        (b"x-forwarded-prefix", b"/p/web"),
    ]


NAMES = st.sampled_from([*HOP_BY_HOP, b"host", b"x-a", b"cookie", b"content-length", b"x-b", b"authorization"])
HEADERS = st.lists(
    st.tuples(NAMES, st.sampled_from([b"1", b"x-a, X-B", b"close", b"upgrade", b"trailers"])), max_size=8
)


@given(HEADERS)
def test_no_request_carries_a_field_of_another_hop(given: list[tuple[bytes, bytes]]) -> None:
    dropped = frozenset({b"authorization"})
    names = [name for name, _ in request_headers(given, ROUTE, upgrade=None, drop=dropped)]
    named = {token.strip().lower() for name, value in given if name == b"connection" for token in value.split(b",")}
    allowed_again = {b"connection", b"te", b"transfer-encoding"}
    assert not set(names) & (HOP_BY_HOP - allowed_again)
    assert not set(names) & ((named | dropped) - allowed_again - {b"host"})
    assert names.count(b"host") == 1


@given(HEADERS)
def test_no_answer_carries_framing_or_a_field_of_another_hop(given: list[tuple[bytes, bytes]]) -> None:
    assert not {name for name, _ in response_headers(given, ROUTE)} & (HOP_BY_HOP | {b"content-length"})


def test_trailers_cannot_change_how_a_message_is_read() -> None:
    given = [(b"x-sum", b"1"), (b"content-length", b"3"), (b"transfer-encoding", b"chunked"), (b"host", b"x")]
    assert trailers(given) == [(b"x-sum", b"1")]


def test_an_upgrade_has_to_be_meant() -> None:
    assert upgrade_of([(b"upgrade", b"websocket")]) is None
    assert upgrade_of([(b"connection", b"keep-alive, Upgrade"), (b"upgrade", b"websocket")]) == b"websocket"


@pytest.mark.parametrize(
    ("query", "left", "value"),
    [
        (b"a=1&token=x&b=2", b"a=1&b=2", "x"),
        (b"token=x", b"", "x"),
        (b"a=%zz&b", b"a=%zz&b", None),
        (b"mytoken=x", b"mytoken=x", None),
        (b"token=x&token=y", b"", "x"),
        (b"token=%41", b"", "A"),
    ],
)
def test_a_token_leaves_the_query(query: bytes, left: bytes, value: str | None) -> None:
    assert without_parameter(query, "token") == (left, value)


def test_what_holds_a_secret_of_ours_is_left_out_whatever_it_is_called() -> None:
    withheld = frozenset({b"hk_1"})
    given = [(b"x-a", b"see hk_1!"), (b"cookie", b"k=hk_1"), (b"x-b", b"hk_2"), (b"referer", b"/?token=hk_1")]
    assert [name for name, _ in request_headers(given, ROUTE, upgrade=None, withheld=withheld)][1:2] == [b"x-b"]
    assert trailers(given, withheld=withheld) == [(b"x-b", b"hk_2")]
    for query, left in [(b"a=%zz&t=hk_1&b", b"a=%zz&b"), (b"hk_1", b""), (b"a=b&&c", b"a=b&&c"), (b"", b"")]:
        assert query_without(query, withheld) == left


def test_no_trailer_tells_who_a_request_is_from() -> None:
    names = (b"authorization", b"cookie", b"x-hearth-token", b"x-forwarded-for", b"forwarded", b"x-real-ip")
    assert trailers([(name, b"1") for name in names]) == []


def test_what_holds_for_all_of_an_origin_is_said_only_by_who_has_it_alone() -> None:
    names = (b"strict-transport-security", b"service-worker-allowed", b"clear-site-data", b"alt-svc", b"x-a")
    given = [(name, b"/") for name in names]
    assert response_headers(given, ROUTE) == [(b"x-a", b"/")]
    alone = Route(scheme=b"https", host=b"web.example.org", prefix=b"", port=3000, client=None)
    assert response_headers(given, alone) == given
