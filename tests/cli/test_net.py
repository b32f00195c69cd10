"""What a sandbox may reach, from words on the command line to a policy and back."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime

import pytest

from hearth.api.net_schemas import EgressAttempt, NetPolicyView
from hearth.cli.commands.egress import news, row_of
from hearth.cli.net import add_net, options_for, policy_of, words_for
from hearth.errors import InvalidInput

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def policy(*words: str) -> dict[str, object] | None:
    parser = argparse.ArgumentParser()
    add_net(parser)
    return policy_of(parser.parse_args(words))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((), None),
        (("--net", "public"), {"default": "public"}),
        (
            ("--allow", "api.example.com", "--allow", "10.0.0.0/8", "--allow", "1.2.3.4", "--allow", "*.example.org"),
            {"allow_hosts": ["api.example.com", "*.example.org"], "allow_cidrs": ["10.0.0.0/8", "1.2.3.4"]},
        ),
        (("--no-allow",), {"allow_hosts": [], "allow_cidrs": []}),
        (("--no-neighbours", "--audit"), {"neighbours": False, "audit": True}),
        (("--upload", "500k", "--download", "none"), {"upload_bytes_per_s": 500_000, "download_bytes_per_s": None}),
    ],
)
def test_options_become_the_fields_they_name(words: tuple[str, ...], expected: dict[str, object] | None) -> None:
    assert policy(*words) == expected


@pytest.mark.parametrize("words", [("--upload", "fast"), ("--allow", "a.example", "--no-allow")])
def test_options_that_cannot_be_meant_are_refused_by_name(words: tuple[str, ...]) -> None:
    with pytest.raises(InvalidInput) as caught:
        policy(*words)
    assert caught.value.field in words


@pytest.mark.parametrize(
    "view",
    [
        NetPolicyView(default="deny"),
        NetPolicyView(default="public", allow_cidrs=["10.0.0.0/8"]),
        NetPolicyView(default="deny", allow_hosts=["api.example.com", "*.example.org"]),
    ],
)
def test_an_allow_list_is_printed_as_the_options_that_ask_for_it(view: NetPolicyView) -> None:
    said = policy(*options_for(view).split())
    assert said == {"default": view.default, "allow_hosts": view.allow_hosts, "allow_cidrs": view.allow_cidrs}


def test_a_policy_is_said_in_a_line() -> None:
    view = NetPolicyView(default="deny", allow_hosts=["api.example.com"], neighbours=False, upload_bytes_per_s=10_000)
    assert words_for(view) == "nothing of the world but api.example.com; no neighbours; upload 10000 B/s"


def attempt(count: int, port: int = 443) -> EgressAttempt:
    address = "192.0.2.1"
    times = {"first_at": NOW, "last_at": NOW}
    return EgressAttempt(
        kind="denied", rule="deny", host="", address=address, protocol="tcp", port=port, count=count, **times
    )


def test_following_shows_only_what_was_tried_again() -> None:
    counts: dict[tuple[object, ...], int] = {}
    assert news([attempt(1)], counts) == [attempt(1)]
    assert news([attempt(1)], counts) == []
    assert news([attempt(3), attempt(1, port=80)], counts) == [attempt(3), attempt(1, port=80)]
    assert row_of(attempt(3), "now") == ("now", "refused", "deny", "-", "192.0.2.1", "443/tcp", "3")
