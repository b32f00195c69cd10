"""What becomes of a guest's question, decided without asking anybody: answered, refused, or asked of the world; pure.

Names below ``hearth`` are the owner's sandboxes. The world's names are the world's to deny: nothing here says that one
of them does not exist. Nothing of the host's is ever an answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address

from hearth.network import dns
from hearth.network.dns import Answer, Code, Kind, Question
from hearth.network.policy import Policy, is_private

ZONE = "hearth"
ZONE_TTL_S = 5
"""A sandbox that sleeps and wakes may come back at another address."""
WITHOUT_ANSWER = (Kind.AAAA, Kind.SVCB, Kind.HTTPS)
"""There is no IPv6, and the last two carry addresses past those that are bound."""


@dataclass(frozen=True, kw_only=True)
class Household:
    """An owner's running sandboxes: name → address."""

    addresses: Mapping[str, IPv4Address] = field(default_factory=dict)

    def name_at(self, address: IPv4Address) -> str | None:
        return next((name for name, each in self.addresses.items() if each == address), None)


@dataclass(frozen=True, kw_only=True)
class Reply:
    """The bytes to answer with; ``rule`` when they are a refusal to be told of."""

    message: bytes
    rule: str | None = None


def decide(question: Question, policy: Policy, household: Household) -> Reply | None:
    """Give the answer that needs nobody else; None when the world is to be asked."""
    own = _own_name(question, policy, household)
    if own is not None:
        return own
    asked_address = dns.reversed_address(question.name)
    if asked_address is not None and is_private(asked_address):
        # RFC 6303: such names must not be asked of the world.
        name = household.name_at(asked_address) if policy.neighbours else None
        if name is None or question.kind != Kind.PTR:
            return Reply(message=dns.answer(question, Code.NO_NAME))
        return Reply(message=dns.pointer(question, f"{name}.{ZONE}", ttl_s=ZONE_TTL_S))
    if not policy.allows_name(question.name):
        return refuse(question, "name")
    if question.kind in WITHOUT_ANSWER:
        return Reply(message=dns.answer(question, Code.OK))
    if question.kind in (Kind.ANY, Kind.OPT) or question.kind >= 128:
        return Reply(message=dns.answer(question, Code.NOT_IMPLEMENTED))
    return None


def refuse(question: Question, rule: str) -> Reply:
    """Give the answer that says the policy is the reason."""
    return Reply(message=dns.answer(question, Code.REFUSED), rule=rule)


def points_inside(found: Answer, policy: Policy) -> bool:
    """Tell whether an answer of the world leads into a private network or to metadata (DNS rebinding).

    A network that the policy lists is meant to be reached, by its names too.
    """
    return any(
        is_private(record.address) and not any(record.address in network for network in policy.networks)
        for record in found.records
        if record.address is not None
    )


def _own_name(question: Question, policy: Policy, household: Household) -> Reply | None:
    if question.name == "localhost" or question.name.endswith(".localhost"):
        address: IPv4Address | None = IPv4Address("127.0.0.1")  # RFC 6761, section 6.3
    elif question.name == ZONE:
        return Reply(message=dns.answer(question, Code.OK))
    elif question.name.endswith(f".{ZONE}"):
        label = question.name.removesuffix(f".{ZONE}")
        address = household.addresses.get(label) if policy.neighbours else None
        if address is None:
            return Reply(message=dns.answer(question, Code.NO_NAME))
    elif "." not in question.name and policy.neighbours and question.name in household.addresses:
        address = household.addresses[question.name]
    else:
        return None
    found = [address] if question.kind == Kind.A and address is not None else []
    return Reply(message=dns.answer(question, Code.OK, found, ttl_s=ZONE_TTL_S))
