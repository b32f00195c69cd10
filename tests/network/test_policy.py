from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest

from hearth.errors import InvalidInput
from hearth.network.policy import (
    CLOSED,
    DEFAULT,
    PUBLIC,
    Base,
    Policy,
    is_private,
    matches,
    parse_policy,
)

REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"base": "open"}, "base"),
    ({"base": None}, "base"),
    ({"mode": "public"}, "mode"),
    ({"networks": "10.0.0.0/8"}, "networks"),
    ({"networks": ["10.0.0.1/8"]}, "networks"),
    ({"networks": ["::1/128"]}, "networks"),
    ({"networks": ["169.254.169.254"]}, "networks"),
    ({"networks": ["127.0.0.0/8"]}, "networks"),
    ({"networks": [8]}, "networks"),
    ({"names": ["*"]}, "names"),
    ({"names": ["*.*.com"]}, "names"),
    ({"names": ["exa mple.com"]}, "names"),
    ({"names": ["1.2.3.4"]}, "names"),
    ({"names": [""]}, "names"),
    ({"names": ["a." * 130 + "com"]}, "names"),
    ({"names": ["bücher.example"]}, "names"),
    ({"names": ["a.com"] * 1001}, "names"),
    ({"neighbours": "yes"}, "neighbours"),
    ({"audit": 1}, "audit"),
    ({"upload_bytes_per_s": 10}, "upload_bytes_per_s"),
    ({"download_bytes_per_s": True}, "download_bytes_per_s"),
    ({"download_bytes_per_s": "1M"}, "download_bytes_per_s"),
]
PATTERNS = [
    ("example.com", "example.com", True),
    ("example.com", "www.example.com", False),
    ("*.example.com", "www.example.com", True),
    ("*.example.com", "a.b.example.com", True),
    ("*.example.com", "example.com", False),
    ("*.example.com", ".example.com", False),
    ("*.example.com", "badexample.com", False),
    ("*.example.com", "www.example.com.evil.net", False),
]


def test_nothing_said_is_the_closed_default() -> None:
    assert parse_policy({}) == DEFAULT
    assert (DEFAULT.base, DEFAULT.neighbours) == (Base.DENY, True)
    assert not DEFAULT.allows_name("example.com")
    assert not CLOSED.neighbours


@pytest.mark.parametrize(("said", "field"), REFUSED)
def test_what_cannot_be_is_refused_by_the_name_of_its_field(said: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_policy(said)
    assert caught.value.field == field
    assert caught.value.resolution


def test_a_policy_survives_the_store() -> None:
    said = {
        "base": "public",
        "networks": ["10.0.0.0/9", "10.128.0.0/9"],
        "names": ["*.Example.com.", "api.example.net", "*.example.com"],
        "neighbours": False,
        "audit": True,
        "upload_bytes_per_s": 1_000_000,
        "download_bytes_per_s": None,
    }
    policy = parse_policy(said)
    assert policy.networks == (IPv4Network("10.0.0.0/8"),)
    assert policy.names == ("*.example.com", "api.example.net")
    assert parse_policy(policy.describe()) == policy


@pytest.mark.parametrize(("pattern", "name", "expected"), PATTERNS)
def test_which_names_a_pattern_means(pattern: str, name: str, expected: bool) -> None:
    assert matches(pattern, name) is expected


def test_every_difference_is_another_generation_and_none_is_zero() -> None:
    others = [PUBLIC, CLOSED, Policy(audit=True), Policy(names=("a.com",)), Policy(upload_bytes_per_s=20_000)]
    generations = {each.generation("1") for each in (DEFAULT, *others)}
    assert len(generations) == len(others) + 1
    assert 0 not in generations
    assert DEFAULT.generation("1") == Policy().generation("1") != DEFAULT.generation("2")


@pytest.mark.parametrize(
    "text", ["127.0.0.1", "169.254.169.254", "10.0.0.1", "172.31.255.255", "192.168.1.1", "100.64.0.1", "168.63.129.16"]
)
def test_what_is_not_the_world(text: str) -> None:
    assert is_private(IPv4Address(text))


def test_the_world_is_the_world() -> None:
    for text in ("1.1.1.1", "8.8.8.8", "172.32.0.1", "100.128.0.1", "193.0.0.1"):
        assert not is_private(IPv4Address(text))


NARROW = {"base": "deny", "networks": ["10.1.0.0/16"], "names": ["api.example.com"], "upload_bytes_per_s": 20_000}


@pytest.mark.parametrize(
    ("mine", "others", "fits"),
    [
        (NARROW, NARROW, True),
        ({}, NARROW, False),
        ({**NARROW, "networks": ["10.1.2.0/24"], "names": [], "upload_bytes_per_s": 10_000}, NARROW, True),
        ({**NARROW, "networks": ["10.0.0.0/8"]}, NARROW, False),
        ({**NARROW, "names": ["other.example.com"]}, NARROW, False),
        ({**NARROW, "upload_bytes_per_s": 30_000}, NARROW, False),
        ({**NARROW, "base": "public"}, NARROW, False),
        ({**NARROW, "audit": True}, NARROW, False),
        ({"neighbours": True}, {"neighbours": False}, False),
        ({"names": ["api.example.com"]}, {"base": "public"}, True),
        ({"networks": ["10.0.0.0/8"]}, {"base": "public"}, False),
        ({"base": "public"}, {"base": "public", "download_bytes_per_s": 10_000}, False),
    ],
)
def test_a_policy_lies_within_another_that_is_nowhere_narrower(
    mine: dict[str, object], others: dict[str, object], fits: bool
) -> None:
    assert parse_policy(mine).is_within(parse_policy(others)) is fits
