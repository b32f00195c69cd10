"""Network policies between the API's words and those inside."""

from __future__ import annotations

from datetime import UTC, datetime
from ipaddress import IPv4Address

import msgspec
import pytest
from tests.server.daemon import RunningDaemon

from hearth.api.net_schemas import NetPolicy
from hearth.control.egress import EgressLog
from hearth.control.networking import Egress
from hearth.errors import InvalidInput
from hearth.host.clock import ManualClock
from hearth.network.events import EgressEvent, EventKind
from hearth.network.policy import DEFAULT, parse_policy
from hearth.server.policies import egress_view, policy_fields, policy_view

NOW = datetime(2026, 1, 1, tzinfo=UTC)
WHOLE = {
    "default": "public",
    "allow_hosts": ["api.example.com"],
    "allow_cidrs": ["10.0.0.0/8"],
    "neighbours": False,
    "audit": True,
    "upload_bytes_per_s": 20_000,
    "download_bytes_per_s": 30_000,
}


def test_a_policy_comes_back_as_it_was_said() -> None:
    fields = policy_fields(msgspec.convert(WHOLE, NetPolicy))
    assert fields is not None
    assert msgspec.to_builtins(policy_view(parse_policy(fields))) == WHOLE


def test_what_is_not_said_is_not_among_the_fields() -> None:
    assert policy_fields(None) is None
    assert policy_fields(NetPolicy()) == {}
    assert policy_fields(NetPolicy(default="deny", upload_bytes_per_s=None)) == {
        "base": "deny",
        "upload_bytes_per_s": None,
    }


@pytest.mark.parametrize(
    ("said", "field"),
    [
        (NetPolicy(allow_hosts=["not a host"]), "net_policy.allow_hosts"),
        (NetPolicy(allow_hosts=["1.2.3.4"]), "net_policy.allow_hosts"),
        (NetPolicy(allow_cidrs=["10.0.0.1/8"]), "net_policy.allow_cidrs"),
        (NetPolicy(allow_cidrs=["169.254.169.254"]), "net_policy.allow_cidrs"),
        (NetPolicy(allow_cidrs=["::/0"]), "net_policy.allow_cidrs"),
    ],
)
def test_what_is_wrong_is_named_as_the_api_calls_it(said: NetPolicy, field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        policy_fields(said)
    assert caught.value.field == field
    assert caught.value.resolution


def test_what_was_tried_is_shown_with_rule_count_and_times() -> None:
    log = EgressLog(ManualClock(NOW))
    name = EgressEvent(sandbox_id="sb-1", kind=EventKind.NAME_DENIED, rule="name", host="evil.example.com")
    address = IPv4Address("1.2.3.4")
    call = EgressEvent(
        sandbox_id="sb-1", kind=EventKind.DENIED, rule="deny", host="", address=address, protocol="tcp", port=443
    )
    for event in (name, call, call):
        log.tell(event)
    view = egress_view(Egress(policy=DEFAULT, tried=log.tried("sb-1"), minimal=DEFAULT))
    assert view.counts == {"name": 1, "deny": 2}
    assert [(each.kind, each.rule, each.host, each.address, each.port, each.count) for each in view.attempts] == [
        ("name_denied", "name", "evil.example.com", None, 0, 1),
        ("denied", "deny", "", "1.2.3.4", 443, 2),
    ]


def test_the_development_engine_takes_no_policy_it_could_not_keep(daemon: RunningDaemon) -> None:
    with daemon.client() as client, pytest.raises(InvalidInput, match="engine connects no machines"):
        client.create(name="kept", net_policy={"default": "deny"})


def test_a_daemon_may_have_as_many_descriptors_as_the_host_allows(daemon: RunningDaemon) -> None:
    with open(f"/proc/{daemon.process.pid}/limits") as limits:
        (soft, hard) = next(line.split()[3:5] for line in limits if line.startswith("Max open files"))
    assert soft == hard
