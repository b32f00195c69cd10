"""What is tried, for a scene: pure. The order of the probes is the order of the report."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from hearth.attack import frames, spoils
from hearth.attack.model import Expect, Flow, Probe, Where
from hearth.attack.spoils import AGENT_PORTS

WITNESS_PORT = 47_600
GROUPS = (
    *("metadata", "gateway", "host", "private", "neighbours", "strangers", "agent"),
    *("names", "world", "frames", "ipv6", "floods", "proxy"),
)
GATEWAY_PORTS = (22, 80, 443, 2375, 6443, 8080)
DNS = 53
METADATA = {
    "169.254.169.254": "AWS, GCP, Azure, OpenStack, DigitalOcean, Hetzner",
    "169.254.170.2": "AWS ECS credentials",
    "169.254.169.123": "AWS time",
    "169.254.0.1": "link-local",
    "168.63.129.16": "Azure wire server",
    "100.100.100.200": "Alibaba",
    "192.0.0.192": "Oracle",
}
METADATA_V6 = {"fd00:ec2::254": "AWS", "fd20:ce::254": "GCP", "fd00:42::42": "Scaleway"}
PRIVATE = {
    "10.0.0.1": "10/8",
    "172.17.0.1": "a container bridge",
    "192.168.0.1": "192.168/16",
    "192.168.122.1": "libvirt's bridge",
    "100.127.255.1": "a sandbox's address nobody has",
    "198.18.0.1": "the uplinks' range",
    "192.0.2.1": "a documentation range",
}
OUTSIDE = {("9.9.9.9", 53): "a DNS server", ("1.1.1.1", 853): "DNS over TLS", ("1.1.1.1", 443): "DNS over HTTPS"}
NEEDS_FRIEND = "no neighbour of the same owner: leave out --no-neighbours, and let the policy have neighbours"
NEEDS_STRANGER = "no sandbox of another owner: call as an administrator, or with --other-key"
MOST_SCANNED, LAST_SCANNED = 3, 1100
"""Addresses of the host, and the last port."""
A, TXT, NULL = 1, 16, 10
ANSWER_S, SILENCE_S = 30.0, 4.0
"""How long an answer is waited for that is to come, and one that is not."""


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What an attack finds.

    Args:
        address, gateway: of the target.
        friend, stranger: addresses of the throw-away sandboxes; None where there are none. ``friend_name`` and
            ``stranger_name`` their names.
        is_open: the policy lets the target call the public world; ``allowed`` are networks it may call besides.
        neighbours: the policy lets it call its owner's others.
        hosts: addresses of the host; ``also`` addresses and ports that the caller wants tried.
    """

    run: str
    gateway: str
    address: str
    friend: str | None = None
    friend_name: str = ""
    stranger: str | None = None
    stranger_name: str = ""
    has_spare: bool = False
    is_open: bool = False
    neighbours: bool = True
    allowed: tuple[IPv4Network, ...] = ()
    hosts: tuple[str, ...] = ()
    also: tuple[tuple[str, int], ...] = ()


def probes_for(scene: Scene, groups: Collection[str] = ()) -> tuple[Probe, ...]:
    """Give everything there is to try, what cannot be tried included; of ``groups`` alone where there are any.

    What the chosen ones have as a control comes with them.
    """
    probes = {probe.id: probe for probe in _all(scene)}
    chosen = {probe.id for probe in probes.values() if not groups or probe.group in groups}
    while more := {each for one in chosen for each in probes[one].control if each in probes} - chosen:
        chosen |= more
    return tuple(
        replace(probe, because=why, tried_at_all=False) if (why := _missing(scene, probe)) else probe
        for probe in probes.values()
        if probe.id in chosen
    )


def _all(scene: Scene) -> Iterator[Probe]:
    yield from _metadata(scene)
    yield from _gateway_and_host(scene)
    yield from _private(scene)
    yield from _neighbours(scene)
    yield from _strangers(scene)
    yield from _agents(scene)
    yield from _names(scene)
    yield from _world(scene)
    yield from frames.shots(scene.gateway, scene.address, scene.friend or "", scene.stranger or "", WITNESS_PORT)
    yield from spoils.floods(scene.gateway, scene.friend or "", scene.friend_name)
    yield from spoils.proxy()


def _missing(scene: Scene, probe: Probe) -> str:
    """Tell what a probe lacks in this scene; "" for nothing."""
    controls = {probe.id, *probe.control}
    needs_friend = probe.where in (Where.FRIEND, Where.SPARE, Where.AFTERWARDS) or controls & {
        "friend-dial",
        "friend-name",
    }
    needs_way = probe.where is Where.FRIEND or controls & {"friend-udp", "frame-honest"}
    if probe.id != "gateway-dns" and (needs_friend or needs_way) and scene.friend is None:
        return NEEDS_FRIEND
    if needs_way and not scene.neighbours:
        return NEEDS_FRIEND
    if probe.where in (Where.SPARE, Where.AFTERWARDS) and not scene.has_spare:
        return NEEDS_FRIEND
    if (probe.where is Where.STRANGER or "stranger" in probe.id) and scene.stranger is None:
        return NEEDS_STRANGER
    if probe.id == "raw-private" and any(IPv4Address("10.0.0.1") in network for network in scene.allowed):
        return "the policy lists its network"
    return ""


def dialled(
    identity: str,
    group: str,
    target: str,
    flow: Flow,
    *,
    expect: Expect = Expect.DENIED,
    control: Sequence[str] = ("gateway-dns",),
    **more: Any,
) -> Probe:
    """Make a probe of a TCP connection or a datagram."""
    protocol, address, port = flow
    is_awaited = expect is Expect.ALLOWED or more.get("where", Where.TARGET) is not Where.TARGET
    patience_s = ANSWER_S if is_awaited else SILENCE_S
    how: Mapping[str, Any] = {"address": address, "port": port, "protocol": protocol, "patience_s": patience_s}
    return Probe(
        id=identity,
        group=group,
        target=target,
        tried=f"{protocol} {port}",
        expect=expect,
        do="dial",
        how=how,
        control=tuple(control),
        flow=flow,
        **more,
    )


def _metadata(scene: Scene) -> Iterator[Probe]:
    for address, who in METADATA.items():
        yield _outward(scene, f"metadata-{address}", "metadata", f"{address} ({who})", ("tcp", address, 80), never=True)
    yield _outward(
        scene, "metadata-udp", "metadata", "169.254.169.254 (AWS, …)", ("udp", "169.254.169.254", 53), never=True
    )
    for address, who in METADATA_V6.items():
        yield frames.ipv6(f"metadata-v6-{address.replace(':', '-')}", "metadata", f"{address} ({who})", address, scene)


def _outward(
    scene: Scene, identity: str, group: str, target: str, flow: Flow, *, never: bool = False, public: bool = False
) -> Probe:
    """Make a probe of an address beyond the owner's network; what the policy opens is allowed."""
    probe = dialled(identity.replace(".", "-"), group, target, flow)
    address = IPv4Address(flow[1])
    if any(address in network for network in scene.allowed) and not never:
        return replace(probe, expect=Expect.ALLOWED, control=(), because="the policy lists its network")
    if public and scene.is_open:
        return replace(probe, expect=Expect.ALLOWED, control=(), because="the policy opens the public world")
    return probe


def _gateway_and_host(scene: Scene) -> Iterator[Probe]:
    dns = ("tcp", scene.gateway, DNS)
    because = "the resolver is the guest's to ask"
    yield dialled(
        "gateway-dns", "gateway", scene.gateway, dns, expect=Expect.ALLOWED, control=("friend-name",), because=because
    )
    yield _scan("gateway-scan", "gateway", scene.gateway, ports=(DNS,))
    for port in GATEWAY_PORTS:
        yield dialled(f"gateway-{port}", "gateway", scene.gateway, ("tcp", scene.gateway, port))
    yield dialled("gateway-udp", "gateway", scene.gateway, ("udp", scene.gateway, 67))
    yield dialled("own-address", "gateway", f"{scene.address} (its own)", ("tcp", scene.address, 22))
    for host in scene.hosts:
        for port in (22, 80, 443):
            yield dialled(f"host-{host.replace('.', '-')}-{port}", "host", host, ("tcp", host, port))
        yield dialled(f"host-{host.replace('.', '-')}-udp", "host", host, ("udp", host, DNS))
    for host in scene.hosts[:MOST_SCANNED]:
        yield _scan(f"host-{host.replace('.', '-')}-scan", "host", host, control=("gateway-scan",))
    for address, port in scene.also:
        yield dialled(f"also-{address.replace('.', '-')}-{port}", "host", address, ("tcp", address, port))
    yield from frames.loopback(scene.gateway)


def _scan(
    identity: str, group: str, address: str, *, ports: tuple[int, ...] = (), control: tuple[str, ...] = ()
) -> Probe:
    return Probe(
        id=identity,
        group=group,
        target=address,
        tried=f"tcp 1 to {LAST_SCANNED}",
        expect=Expect.ONLY,
        do="scan",
        how={"address": address, "first": 1, "last": LAST_SCANNED},
        control=control,
        ports=ports,
    )


def _private(scene: Scene) -> Iterator[Probe]:
    for address, what in PRIVATE.items():
        yield _outward(scene, f"private-{address}", "private", f"{address} ({what})", ("tcp", address, 80))
    yield _outward(scene, "private-udp", "private", "10.0.0.1 (10/8)", ("udp", "10.0.0.1", 161))


def _neighbours(scene: Scene) -> Iterator[Probe]:
    friend, name = scene.friend or "", "a neighbour, same owner"
    flow, control = ("tcp", friend, WITNESS_PORT), ("gateway-dns",)
    open_to_us = Expect.ALLOWED if scene.neighbours else Expect.DENIED
    because = "sandboxes of one owner reach each other"
    yield dialled("friend-dial", "neighbours", name, flow, expect=open_to_us, control=control, because=because)
    yield dialled(
        "friend-udp",
        "neighbours",
        name,
        ("udp", friend, WITNESS_PORT),
        expect=open_to_us,
        control=("gateway-dns", "friend-dial"),
        because=because,
    )
    back = ("tcp", scene.address, WITNESS_PORT)
    yield dialled(
        "target-from-friend",
        "neighbours",
        "the target, from there",
        back,
        expect=open_to_us,
        where=Where.FRIEND,
        control=("friend-dial",),
        because=because,
    )


def _strangers(scene: Scene) -> Iterator[Probe]:
    stranger, name = scene.stranger or "", "a sandbox of another owner"
    reach = ("friend-dial",) if scene.neighbours else ("gateway-dns",)
    for port in (WITNESS_PORT, 22, *AGENT_PORTS):
        identity = f"stranger-{port}"
        yield dialled(identity, "strangers", name, ("tcp", stranger, port), control=reach)
    yield dialled(
        "stranger-udp", "strangers", name, ("udp", stranger, WITNESS_PORT), control=("friend-dial", "friend-udp")
    )
    yield dialled(
        "stranger-own-gateway",
        "strangers",
        "its own gateway, from there",
        ("tcp", scene.gateway, DNS),
        expect=Expect.ALLOWED,
        where=Where.STRANGER,
        control=reach,
        because="the resolver is the guest's to ask",
    )
    for port in (WITNESS_PORT, *AGENT_PORTS):
        yield dialled(
            f"target-from-stranger-{port}",
            "strangers",
            "the target, from there",
            ("tcp", scene.address, port),
            where=Where.STRANGER,
            control=("stranger-own-gateway",),
            because="its own gateway answered",
        )


def _agents(scene: Scene) -> Iterator[Probe]:
    for port in AGENT_PORTS:
        neighbour = ("tcp", scene.friend or "", port)
        yield dialled(f"agent-friend-{port}", "agent", "a neighbour's agent", neighbour, control=("friend-dial",))
        yield dialled(
            f"agent-outer-{port}", "agent", "its own agent, by its outer address", ("tcp", scene.address, port)
        )
        yield dialled(
            f"agent-target-{port}",
            "agent",
            "the target's agent, from a neighbour",
            ("tcp", scene.address, port),
            where=Where.FRIEND,
            control=("target-from-friend",),
            because="its other ports answer",
        )
        yield Probe(
            id=f"agent-own-{port}",
            group="agent",
            target="its own agent, from within",
            tried=f"hostile frames at tcp {port}",
            expect=Expect.ALONE,
            do="speak to agent",
            how={"addresses": ["127.0.0.1"], "port": port},
        )
    yield Probe(
        id="agent-crowd",
        group="agent",
        target="its own agent, from within",
        tried="200 connections at once",
        expect=Expect.ALONE,
        do="crowd agent",
        how={"address": "127.0.0.1", "port": AGENT_PORTS[0]},
    )
    yield spoils.impostor()


def _names(scene: Scene) -> Iterator[Probe]:
    zone = f"r{scene.run}.hearth-attack.example"
    server = {"server": scene.gateway}
    asked = Expect.ALLOWED if scene.is_open else Expect.REFUSED_NAME
    opened = "the policy opens the public world, its names too" if scene.is_open else ""
    friend, because = scene.friend_name, "sandboxes of one owner find each other"

    def named(identity: str, target: str, tried: str, how: Mapping[str, Any], **more: Any) -> Probe:
        more = {"do": "ask", "expect": asked, "because": opened, **more}
        return Probe(id=identity, group="names", target=target, tried=tried, how={**server, **how}, **more)

    allowed = {"expect": Expect.ALLOWED, "because": because, "control": ("gateway-dns",)}
    yield named("friend-name", "a neighbour's name", "A", {"name": f"{friend}.hearth"}, **allowed)
    stranger = {"name": f"{scene.stranger_name}.hearth"}
    hidden: dict[str, Any] = {"expect": Expect.REFUSED_NAME, "control": ("friend-name",), "because": ""}
    yield named("stranger-name", "a name of another owner", "A", stranger, **hidden)
    for title, kind in (("A", A), ("TXT", TXT), ("NULL", NULL)):
        for by_stream in (False, True):
            way = "tcp" if by_stream else "udp"
            identity = f"{title.lower()}-{way}"
            how = {"name": f"{identity}.{zone}", "kind": kind, "by_stream": by_stream}
            yield named(f"name-{identity}", "a name of the world", f"{title} by {way}", how, names=f"{identity}.{zone}")
    for title, kind in (("A", A), ("TXT", TXT)):
        where = f"tunnel-{title.lower()}.{zone}"
        how = {"zone": where, "kind": kind, "times": 5}
        yield named(
            f"tunnel-{title.lower()}", "a tunnel of names", f"long random {title}", how, do="names", names=where
        )


def _world(scene: Scene) -> Iterator[Probe]:
    for (address, port), what in OUTSIDE.items():
        flow = ("tcp", address, port)
        yield _outward(scene, f"world-{address}-{port}", "world", f"{address} ({what})", flow, public=True)
    flow = ("udp", "9.9.9.9", DNS)
    yield _outward(scene, "world-udp-53", "world", "9.9.9.9 (a DNS server)", flow, public=True)
