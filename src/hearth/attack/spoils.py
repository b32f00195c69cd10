"""Probes that would spoil the target, or that the host itself carries out: pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hearth.attack.model import Expect, Probe, Where

AGENT_PORTS = (1024, 1025)


def impostor() -> Probe:
    """Give the one that puts a program in the agent's place."""
    return Probe(
        id="impostor",
        group="agent",
        target="the daemon, from an agent's place",
        tried="hostile frames, endless and silent answers",
        expect=Expect.SURVIVED,
        where=Where.SPARE,
        do="become agent",
        how={"seconds": 240},
        control=("impostor-heard",),
    )


def floods(gateway: str, friend: str, friend_name: str) -> Iterator[Probe]:
    """Give what asks for too much."""
    server = {"server": gateway, "name": f"{friend_name}.hearth"}
    spare: dict[str, Any] = {"group": "floods", "where": Where.SPARE, "control": ("after-floods",)}
    yield Probe(
        id="flood-nonsense",
        target="the resolver",
        tried="nonsense, and streams held open",
        expect=Expect.SURVIVED,
        do="nonsense",
        how=server,
        **spare,
    )
    yield Probe(
        id="flood-questions",
        target="the resolver",
        tried="2 000 questions at once",
        expect=Expect.BOUNDED,
        do="questions",
        how={**server, "count": 2000},
        **spare,
    )
    yield Probe(
        id="flood-flows",
        target="connection tables",
        tried="12 000 flows to a neighbour",
        expect=Expect.BOUNDED,
        do="flows",
        how={"address": friend, "count": 12_000, "seconds": 60, "needed": 10_000},
        **spare,
    )
    yield Probe(
        id="flood-console",
        target="the console",
        tried="up to 4 MiB in 5 s",
        expect=Expect.SURVIVED,
        do="console",
        how={"bytes": 4 << 20, "seconds": 5},
        **spare,
    )
    yield Probe(
        id="after-floods",
        group="floods",
        target="a neighbour's resolver",
        tried="a name, afterwards",
        expect=Expect.ALLOWED,
        do="ask",
        how=server,
        where=Where.AFTERWARDS,
        control=("gateway-dns",),
        because="the neighbour did not notice the floods",
    )


def proxy() -> Iterator[Probe]:
    """Give what a guest's server could have the daemon do."""
    common: dict[str, Any] = {"group": "proxy", "control": ("proxy-plain",)}
    yield Probe(
        id="proxy-plain",
        group="proxy",
        target="the target's server",
        tried="GET through the daemon",
        expect=Expect.ALLOWED,
        because="its owner may",
        control=("gateway-dns",),
    )
    yield Probe(
        id="proxy-redirect",
        target="the daemon's host",
        tried="a redirect to its loopback",
        expect=Expect.SURVIVED,
        **common,
    )
    for port in AGENT_PORTS:
        yield Probe(
            id=f"proxy-agent-{port}",
            target="the target's agent",
            tried=f"GET of port {port} through the daemon",
            expect=Expect.SURVIVED,
            **common,
        )
