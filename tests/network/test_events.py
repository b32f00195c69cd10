from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

from hearth.network.events import EgressEvent, EventKind, minimal_policy, protocol_name
from hearth.network.policy import DEFAULT, Base, parse_policy


def seen(address: str, host: str = "") -> EgressEvent:
    return EgressEvent(
        sandbox_id="sb-1",
        kind=EventKind.SEEN,
        rule="seen",
        host=host,
        address=IPv4Address(address),
        protocol="tcp",
        port=443,
    )


def test_names_stand_for_calls_by_name_and_networks_for_calls_by_address() -> None:
    events = [
        seen("1.2.3.4", "api.example.com"),
        seen("1.2.3.5", "api.example.com"),
        seen("9.9.9.9"),
        seen("9.9.9.9"),
        seen("9.9.9.8"),
    ]
    policy = minimal_policy(events, DEFAULT)
    assert policy.names == ("api.example.com",)
    assert policy.networks == (IPv4Network("9.9.9.8/31"),)
    assert (policy.base, policy.audit) == (Base.DENY, False)


def test_what_was_refused_or_only_asked_for_or_inside_is_left_out() -> None:
    events = [
        EgressEvent(sandbox_id="sb-1", kind=EventKind.NAME_DENIED, rule="name", host="evil.example.com"),
        EgressEvent(sandbox_id="sb-1", kind=EventKind.DENIED, rule="private", host="", address=IPv4Address("10.0.0.1")),
        seen("100.64.0.7"),
    ]
    policy = minimal_policy(events, DEFAULT)
    assert (policy.names, policy.networks) == ((), ())


def test_what_was_listed_before_stays_and_is_not_listed_twice() -> None:
    keep = parse_policy(
        {"names": ["*.example.com"], "networks": ["9.9.9.0/24"], "neighbours": False, "upload_bytes_per_s": 20_000}
    )
    policy = minimal_policy([seen("1.2.3.4", "api.example.com"), seen("9.9.9.9"), seen("8.8.8.8", "dns.google")], keep)
    assert policy.names == ("*.example.com", "dns.google")
    assert policy.networks == (IPv4Network("9.9.9.0/24"),)
    assert (policy.neighbours, policy.upload_bytes_per_s) == (False, 20_000)


def test_protocols_have_names_where_they_are_known() -> None:
    assert [protocol_name(number) for number in (6, 17, 1, 132)] == ["tcp", "udp", "icmp", "132"]
