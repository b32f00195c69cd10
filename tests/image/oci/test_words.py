"""The small languages of registries: challenges, times to come back, addresses that may be reached, platforms."""

from __future__ import annotations

import ipaddress
import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hearth.errors import InvalidInput
from hearth.image.layers.refused import ImageRefused
from hearth.image.oci.addresses import is_public, read_registries
from hearth.image.oci.challenge import Challenge, parse_challenges
from hearth.image.oci.documents import ImageManifest, Platform, decode, parse_platform, read_manifest
from hearth.image.oci.transport import MAX_WAIT_S, Url, asked_wait_s

CHALLENGES = {
    'Basic realm="x"': [("basic", {"realm": "x"})],
    'Bearer realm="https://a/t?x=1,2",service="s",scope="a:b:pull,push"': [
        ("bearer", {"realm": "https://a/t?x=1,2", "service": "s", "scope": "a:b:pull,push"})
    ],
    'Negotiate, Bearer realm="a" , service=s, Basic realm="q\\"uote"': [
        ("negotiate", {}),
        ("bearer", {"realm": "a", "service": "s"}),
        ("basic", {"realm": 'q"uote'}),
    ],
    "": [],
    '"': [],
}


@pytest.mark.parametrize(("header", "expected"), CHALLENGES.items())
def test_challenges_are_taken_apart(header: str, expected: list[tuple[str, dict[str, str]]]) -> None:
    assert parse_challenges(header) == [Challenge(scheme=scheme, parameters=said) for scheme, said in expected]


@given(st.text(max_size=200))
def test_no_challenge_is_too_odd(header: str) -> None:
    parse_challenges(header)


PUBLIC = {
    "93.184.216.34": True,
    "2606:2800:220:1::1": True,
    **dict.fromkeys(["127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1"], False),
    **dict.fromkeys(["0.0.0.0", "224.0.0.1", "240.0.0.1", "255.255.255.255", "198.18.0.1", "192.0.2.1"], False),
    **dict.fromkeys(["::1", "::", "fe80::1", "fd00::1", "ff02::1", "::ffff:10.0.0.1", "::ffff:127.0.0.1"], False),
    **dict.fromkeys(["64:ff9b::a00:1", "2002:a00:1::", "fec0::1", "fd00:ec2::254", "64:ff9b:1::a00:1"], False),
    "64:ff9b::5db8:d822": True,
}


@pytest.mark.parametrize(("address", "expected"), PUBLIC.items())
def test_addresses_of_the_whole_internet_are_public_and_no_others(address: str, expected: bool) -> None:
    assert is_public(ipaddress.ip_address(address)) is expected


def test_operators_allow_hosts_ports_and_networks() -> None:
    allowed = read_registries(["registry.example.org", "10.0.0.0/8", "here:5000"], ["plain:80"])
    private, other = ipaddress.ip_address("192.168.0.1"), ipaddress.ip_address("10.9.9.9")
    assert allowed.may_reach("registry.example.org", 443, private)
    assert allowed.may_reach("HERE", 5000, private) and not allowed.may_reach("here", 5001, private)
    assert allowed.may_reach("anything", 1, other) and not allowed.may_reach("anything", 1, private)
    assert allowed.is_plain("plain", 80) and not allowed.is_plain("plain", 81)
    assert allowed.may_pull("any", 1)
    only = read_registries([], [], ["one.example.org"])
    assert only.may_pull("one.example.org", 443) and not only.may_pull("two.example.org", 443)
    for bad in ("", "10.0.0.0/99", "a b", "host:x", ":5000", "http://a"):
        with pytest.raises(InvalidInput):
            read_registries([bad], [])


def test_who_asks_for_patience_gets_some() -> None:
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    assert asked_wait_s(None) == asked_wait_s("soon") == asked_wait_s("-1") == 0
    assert asked_wait_s("7") == 7 and asked_wait_s("99999999999") == MAX_WAIT_S
    assert 20 < asked_wait_s(soon) <= 30
    assert asked_wait_s(format_datetime(datetime.now(UTC) - timedelta(days=1), usegmt=True)) == 0


@pytest.mark.parametrize("text", ["ftp://a/", "https:///x", "https://user@a/", "http://a:99999/", "javascript:x", ""])
def test_a_registry_leads_to_the_web_alone(text: str) -> None:
    with pytest.raises(ImageRefused):
        Url.of(text)


def test_platforms_are_of_linux() -> None:
    assert str(parse_platform("linux/arm/v7")) == "linux/arm/v7" and str(parse_platform("linux/amd64")) == "linux/amd64"
    assert parse_platform(None) != Platform()
    for bad in ("windows/amd64", "", "linux/", "a/b/c/d", "linux/amd64\n"):
        with pytest.raises(InvalidInput):
            parse_platform(bad)


@given(st.binary(max_size=300))
def test_documents_are_read_or_refused(data: bytes) -> None:
    with pytest.raises(ImageRefused):
        decode(data, ImageManifest, "manifest")


@pytest.mark.parametrize(
    "digest", ["sha256:xyz", "md5:" + "a" * 32, "../../etc/passwd", "sha256:" + "A" * 64, "sha256:" + "a" * 64 + "\n"]
)
def test_digests_that_are_none_are_refused(digest: str) -> None:
    text = json.dumps({"config": {"digest": digest, "size": 1}, "layers": []})
    with pytest.raises(ImageRefused):
        read_manifest(text.encode())
