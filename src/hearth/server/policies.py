"""Network policies between the words of the API and those inside."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from hearth.api.net_schemas import EgressAttempt, EgressView, NetPolicy, NetPolicyView
from hearth.control.egress import Attempt
from hearth.control.networking import Egress
from hearth.errors import InvalidInput
from hearth.network.policy import Policy, parse_policy

NAMES = {"default": "base", "allow_hosts": "names", "allow_cidrs": "networks"}
"""What the API calls a field → what it is called inside; the others have one name."""
SHOWN = {inside: shown for shown, inside in NAMES.items()}


def policy_fields(body: NetPolicy | None) -> Mapping[str, object] | None:
    """Give the fields that a body sets, by their names inside, each of them checked.

    Raises:
        InvalidInput: names the field as the API calls it.
    """
    if body is None:
        return None
    said: dict[str, Any] = msgspec.to_builtins(body)
    fields = {NAMES.get(name, name): value for name, value in said.items()}
    try:
        parse_policy(fields)
    except InvalidInput as error:
        shown = SHOWN.get(error.field or "", error.field)
        raise InvalidInput(
            f"invalid {shown} in net_policy",
            details=error.details,
            resolution=error.resolution,
            field=f"net_policy.{shown}",
        ) from error
    return fields


def policy_view(policy: Policy) -> NetPolicyView:
    """Give a policy."""
    return NetPolicyView(
        default=policy.base.value,
        allow_hosts=list(policy.names),
        allow_cidrs=[str(network) for network in policy.networks],
        neighbours=policy.neighbours,
        audit=policy.audit,
        upload_bytes_per_s=policy.upload_bytes_per_s,
        download_bytes_per_s=policy.download_bytes_per_s,
    )


def stored_policy_view(stored: Mapping[str, object] | None) -> NetPolicyView | None:
    """Give a sandbox's policy as it is stored; None without one, or with one that nobody can read: it does not run."""
    if stored is None:
        return None
    try:
        return policy_view(parse_policy(stored))
    except InvalidInput:
        return None


def egress_view(egress: Egress) -> EgressView:
    """Give what a sandbox tried."""
    return EgressView(
        policy=policy_view(egress.policy),
        attempts=[_attempt_view(each) for each in egress.tried.attempts],
        counts=egress.tried.counts,
        forgotten=egress.tried.forgotten,
        allow_list=policy_view(egress.minimal),
    )


def _attempt_view(attempt: Attempt) -> EgressAttempt:
    event = attempt.event
    return EgressAttempt(
        kind=event.kind.value,
        rule=event.rule,
        host=event.host,
        address=None if event.address is None else str(event.address),
        protocol=event.protocol,
        port=event.port,
        count=attempt.count,
        first_at=attempt.first_at,
        last_at=attempt.last_at,
    )
