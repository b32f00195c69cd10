"""The firewall's rules as pure functions: one transaction for a machine's namespace, for the hub, for the host.

The tables of machines and of the hub lie in namespaces of ours: the host's firewall does not see their packets, nor do
they see the host's. The one table on the host is ours by its name and speaks of our uplink alone.

Every packet of a connection, either way, is judged by where the connection was made to (``ct original``), until it
carries the mark of the policy that admitted it: an edited policy has another mark, so connections are judged anew.
"""

from __future__ import annotations

import functools
import socket
from collections.abc import Iterable, Mapping, Sequence
from ipaddress import IPv4Address, IPv4Network, collapse_addresses

from hearth.host import nft
from hearth.host import nft_expressions as x
from hearth.host.nft import Command, Element, Hook
from hearth.host.nft import Policy as Default
from hearth.network.plan import NET_NAME, TAP_NAME, AddressPlan
from hearth.network.policy import NEVER, PRIVATE, Base, Policy

TABLE = "hearth"
"""In the namespaces of ours."""
VERSION = "1"
"""Another one makes a restarted daemon write its rules anew."""
AGENT_PORTS = (1024, 1025)
"""Control and forward port of the agent: first and last."""
DENIED_GROUP = 1
SEEN_GROUP = 2
"""Log groups of the kernel that ``nft_log`` listens to; each namespace has its own."""
EVENTS_PER_S = 20
EVENT_BURST = 40
MOST_FLOWS = 8192
"""Connections of one machine at a time: the hub's and the host's tables are shared by all."""
MOST_NAMED_ADDRESSES = 8192
"""Open by name at a time; an answer that would open more is not given."""
DNS = 53
DATAGRAMS_PER_S = 400
DATAGRAM_BURST = 800
"""Questions that reach the resolver at all; what it answers in earnest is bounded further."""

TCP, UDP, ICMP = socket.IPPROTO_TCP, socket.IPPROTO_UDP, socket.IPPROTO_ICMP
BEFORE_TRACKING, TO_DESTINATION, FILTER, TO_SOURCE = -300, -100, 0, 100
BEFORE_OTHERS = -10
"""Ahead of the host's own filters, so that a refusal is answered whatever they do."""


def generation(supernet: IPv4Network, policy: Policy) -> int:
    """Give the mark of connections that these rules admitted."""
    return policy.generation(f"{VERSION} {supernet}")


def table_comment(supernet: IPv4Network, policy: Policy) -> str:
    """Give the words on a machine's table by which a later daemon sees what holds in there."""
    return f"rules {VERSION}, policy {generation(supernet, policy):08x}"


def machine_rules(
    plan: AddressPlan, supernet: IPv4Network, policy: Policy, bound: Mapping[IPv4Address, int]
) -> list[Command]:
    """Give the transaction that makes a machine's table what it should be, whatever it was.

    Its own address is not in there, so the table can be made before there is one.

    Args:
        plan: the constant wire between guest and namespace.
        supernet: of all sandboxes' addresses; who of them may talk, the hub decides.
        bound: addresses that names of the policy stand for now → milliseconds for which they still do.
    """
    return [*_judgement(plan, supernet, policy), *nft.add_elements(TABLE, "names", _timed(bound))]


@functools.lru_cache(maxsize=256)
def _judgement(plan: AddressPlan, supernet: IPv4Network, policy: Policy) -> tuple[Command, ...]:
    """Everything that machines with the same policy have in common; 1 ms to make, so it is kept."""
    mark = generation(supernet, policy)
    return (
        *nft.fresh_table(TABLE, comment=table_comment(supernet, policy)),
        *_sets(policy),
        *_guard(plan),
        *_verdicts(policy, mark),
        *_outbound(supernet, policy, mark),
        *_inbound(supernet, policy, mark),
        *_forward(),
        *_local(plan),
        *_translation(plan),
    )


def bind_names(bound: Mapping[IPv4Address, int]) -> list[Command]:
    """Give the transaction that opens addresses for so many milliseconds from now, whether they were open or not."""
    # An element's time cannot be changed before Linux 6.12, and one that is not there cannot be deleted.
    keys = [Element(key=address.packed) for address in bound]
    return [
        *nft.add_elements(TABLE, "names", keys),
        *nft.delete_elements(TABLE, "names", keys),
        *nft.add_elements(TABLE, "names", _timed(bound)),
    ]


def _timed(bound: Mapping[IPv4Address, int]) -> list[Element]:
    return [Element(key=address.packed, timeout_ms=timeout_ms) for address, timeout_ms in bound.items()]


def _sets(policy: Policy) -> list[Command]:
    contents = {"never": NEVER, "private": tuple(collapse_addresses(PRIVATE)), "allowed": policy.networks}
    commands = [
        nft.new_set(TABLE, name, nft.ADDRESS_KEY, flags=nft.SET_INTERVAL, identity=place)
        for place, name in enumerate(contents, 1)
    ]
    commands.append(
        nft.new_set(TABLE, "names", nft.ADDRESS_KEY, flags=nft.SET_TIMEOUT, identity=9, size=MOST_NAMED_ADDRESSES)
    )
    for name, networks in contents.items():
        commands += nft.add_elements(TABLE, name, nft.ranges(networks))
    return commands


def _guard(plan: AddressPlan) -> list[Command]:
    """Nothing but IPv4, and from the guest nothing but its own address and MAC address."""
    say = _rules("guard")
    return [
        nft.base_chain(TABLE, "guard", hook=Hook.PREROUTING, priority=BEFORE_TRACKING),
        say([*x.in_link(TAP_NAME), *x.family(socket.AF_INET, op=x.NOT_EQUAL), x.counter(), x.drop()]),
        say([*x.in_link(NET_NAME), *x.family(socket.AF_INET, op=x.NOT_EQUAL), x.counter(), x.drop()]),
        say([*x.in_link(TAP_NAME), *x.sender_mac(plan.guest_mac, op=x.NOT_EQUAL), x.counter(), x.drop()]),
        say([*x.in_link(TAP_NAME), *x.ipv4(), *x.source(plan.guest.ip, op=x.NOT_EQUAL), x.counter(), x.drop()]),
        say([*x.in_link(NET_NAME), *x.ipv4(), *x.source_in(plan.guest.network), x.counter(), x.drop()]),
    ]


def _translation(plan: AddressPlan) -> list[Command]:
    """One address outside is one address inside, all ports of it: the link's only address is the machine's."""
    arriving, leaving = _rules("arriving"), _rules("leaving")
    return [
        nft.base_chain(TABLE, "arriving", hook=Hook.PREROUTING, priority=TO_DESTINATION, kind="nat"),
        arriving([*x.in_link(NET_NAME), *x.ipv4(), *x.translate_destination(plan.guest.ip)]),
        nft.base_chain(TABLE, "leaving", hook=Hook.POSTROUTING, priority=TO_SOURCE, kind="nat"),
        leaving([*x.out_link(NET_NAME), *x.ipv4(), *x.source(plan.guest.ip), x.masquerade()]),
    ]


def _verdicts(policy: Policy, mark: int) -> list[Command]:
    admit, refuse = _rules("admit"), _rules("refuse")
    told = [x.limit(EVENTS_PER_S, EVENT_BURST), x.log(SEEN_GROUP, "seen")]
    return [
        nft.chain(TABLE, "refuse"),
        refuse([*x.protocol(TCP), x.counter(), x.reset()]),
        refuse([x.counter(), x.prohibit()]),
        nft.chain(TABLE, "crowded"),
        *_refusals("crowded")([], "too many connections"),
        nft.chain(TABLE, "admit"),
        *([admit(told)] if policy.audit else []),
        admit([*x.set_mark(mark), x.accept()]),
    ]


def _outbound(supernet: IPv4Network, policy: Policy, mark: int) -> list[Command]:
    """Connections the guest makes, both ways."""
    say, refuse = _rules("outbound"), _refusals("outbound")
    neighbours = x.called_in(supernet)
    commands = [
        nft.chain(TABLE, "outbound"),
        say([*x.mark(mark), *x.state(x.State.ESTABLISHED, x.State.RELATED), x.accept()]),
        say([*x.state(x.State.NEW), x.more_connections_than(MOST_FLOWS), x.goto("crowded")]),
        *([say([*neighbours, x.goto("admit")])] if policy.neighbours else refuse(neighbours, "neighbours")),
        *refuse(x.called_in_set("never"), "never"),
        say([*x.called_in_set("allowed"), x.goto("admit")]),
        say([*x.called_in_set("names"), x.goto("admit")]),
        *refuse(x.called_in_set("private"), "private"),
    ]
    if policy.base is Base.PUBLIC or policy.audit:
        return [*commands, say([x.goto("admit")])]
    return [*commands, *refuse([], "deny")]


def _inbound(supernet: IPv4Network, policy: Policy, mark: int) -> list[Command]:
    """Connections made to the guest, both ways: by neighbours that the hub let through, never to its agent."""
    say, refuse = _rules("inbound"), _refusals("inbound")
    commands = [
        nft.chain(TABLE, "inbound"),
        *refuse([*x.protocol(TCP), *x.called_port(*AGENT_PORTS)], "agent"),
        say([*x.mark(mark), *x.state(x.State.ESTABLISHED, x.State.RELATED), x.accept()]),
        say([*x.caller_in(supernet, op=x.NOT_EQUAL), x.counter(), x.drop()]),
        say([*x.state(x.State.NEW), x.more_connections_than(MOST_FLOWS), x.goto("crowded")]),
    ]
    if policy.neighbours:
        return [*commands, say([*x.set_mark(mark), x.accept()])]
    return [*commands, *refuse([], "neighbours")]


def _forward() -> list[Command]:
    say = _rules("forward")
    from_guest = [*x.in_link(TAP_NAME), *x.out_link(NET_NAME)]
    to_guest = [*x.in_link(NET_NAME), *x.out_link(TAP_NAME)]
    return [
        nft.base_chain(TABLE, "forward", hook=Hook.FORWARD, priority=FILTER, policy=Default.DROP),
        say([*x.state(x.State.INVALID), x.counter(), x.drop()]),
        say([*from_guest, *x.reply(), x.goto("inbound")]),
        say([*from_guest, x.goto("outbound")]),
        say([*to_guest, *x.reply(), x.goto("outbound")]),
        say([*to_guest, x.goto("inbound")]),
    ]


def _local(plan: AddressPlan) -> list[Command]:
    """The namespace itself: the guest may ask the resolver, the daemon may call the guest, nobody else anything."""
    arrive, leave = _rules("input"), _rules("output")
    to_us = [*x.in_link(TAP_NAME), *x.ipv4(), *x.destination(plan.gateway.ip)]
    return [
        nft.base_chain(TABLE, "input", hook=Hook.INPUT, priority=FILTER, policy=Default.DROP),
        arrive([*x.in_link("lo"), x.accept()]),
        arrive([*x.in_link(TAP_NAME), *x.state(x.State.ESTABLISHED, x.State.RELATED), x.accept()]),
        arrive([*to_us, *x.protocol(UDP), *x.port(DNS), x.limit(DATAGRAMS_PER_S, DATAGRAM_BURST), x.accept()]),
        arrive([*to_us, *x.protocol(UDP), *x.port(DNS), x.counter(), x.drop()]),
        arrive([*to_us, *x.protocol(TCP), *x.port(DNS), x.accept()]),
        arrive([*to_us, *x.protocol(ICMP), x.limit(EVENTS_PER_S, EVENT_BURST), x.accept()]),
        *_refusals("input")(x.in_link(TAP_NAME), "host"),
        nft.base_chain(TABLE, "output", hook=Hook.OUTPUT, priority=FILTER, policy=Default.DROP),
        leave([*x.out_link("lo"), x.accept()]),
        leave([*x.out_link(TAP_NAME), x.accept()]),
        # What this namespace says for itself on its owner's bridge is refusals; a VMM that was taken over stays mute.
        leave([*x.out_link(NET_NAME), *x.state(x.State.ESTABLISHED, x.State.RELATED), x.accept()]),
    ]


def hub_rules(
    bridges: Mapping[str, str], uplink: str | None, supernet: IPv4Network, host: Sequence[IPv4Network]
) -> list[Command]:
    """Give the transaction for the namespace in which the owners' bridges are.

    Args:
        bridges: name → owner; those of one owner reach each other.
        uplink: the link to the host; None where there is no way to the world.
        host: the host's own addresses and the uplink's network.
    """
    names = sorted(bridges)
    pairs = [(a, b) for a in names for b in names if a != b and bridges[a] == bridges[b]]
    say, refuse = _rules("forward"), _refusals("forward")
    commands = [
        *nft.fresh_table(TABLE, comment=f"rules {VERSION}"),
        nft.new_set(TABLE, "bridges", nft.LINK_KEY, identity=1),
        nft.new_set(TABLE, "pairs", nft.LINK_PAIR_KEY, flags=nft.SET_CONCAT, identity=2),
        nft.new_set(TABLE, "host", nft.ADDRESS_KEY, flags=nft.SET_INTERVAL, identity=3),
        *nft.add_elements(TABLE, "bridges", [Element(key=nft.link_key(name)) for name in names]),
        *nft.add_elements(TABLE, "pairs", [Element(key=nft.link_key(*pair)) for pair in pairs]),
        *nft.add_elements(TABLE, "host", nft.ranges(collapse_addresses(host))),
        nft.chain(TABLE, "refuse"),
        _rules("refuse")([*x.protocol(TCP), x.counter(), x.reset()]),
        _rules("refuse")([x.counter(), x.prohibit()]),
        nft.base_chain(TABLE, "guard", hook=Hook.PREROUTING, priority=BEFORE_TRACKING),
        _rules("guard")([*x.family(socket.AF_INET, op=x.NOT_EQUAL), x.counter(), x.drop()]),
        nft.base_chain(TABLE, "forward", hook=Hook.FORWARD, priority=FILTER, policy=Default.DROP),
        say([*x.state(x.State.INVALID), x.counter(), x.drop()]),
        # Judged packet by packet: a block may have changed hands since a connection began.
        say([*x.link_pair_in_set("pairs"), x.accept()]),
    ]
    if uplink is not None:
        outward = [*x.link_in_set(x.Meta.IN_NAME, "bridges"), *x.out_link(uplink), *x.ipv4()]
        leave = _rules("leaving")
        commands += [
            say([*x.in_link(uplink), *x.state(x.State.ESTABLISHED, x.State.RELATED), x.accept()]),
            say([*x.in_link(uplink), x.counter(), x.drop()]),
            *refuse([*outward, *x.destination_in(supernet)], "owner"),
            *refuse([*outward, *x.destination_in_set("host")], "host"),
            say([*outward, *x.source_in(supernet), *x.mark_by_source(), x.accept()]),
            nft.base_chain(TABLE, "leaving", hook=Hook.POSTROUTING, priority=TO_SOURCE, kind="nat"),
            leave([*x.out_link(uplink), *x.ipv4(), x.masquerade()]),
        ]
    return [
        *commands,
        *refuse([*x.link_in_set(x.Meta.IN_NAME, "bridges")], "owner"),
        nft.base_chain(TABLE, "input", hook=Hook.INPUT, priority=FILTER, policy=Default.DROP),
        *_refusals("input")([*x.link_in_set(x.Meta.IN_NAME, "bridges")], "host"),
    ]


def host_rules(table: str, uplink: str, network: IPv4Network) -> list[Command]:
    """Give the transaction for the host's own namespace: our table, about our uplink and nothing else.

    What it lets pass, other tables may still drop; what it drops, none of theirs can let pass.
    """

    def say(chain: str, expressions: list[bytes]) -> Command:
        return nft.rule(table, chain, *expressions)

    fromus, tous = x.in_link(uplink), x.out_link(uplink)
    return [
        *nft.fresh_table(table, comment=f"rules {VERSION}"),
        nft.base_chain(table, "input", hook=Hook.INPUT, priority=BEFORE_OTHERS),
        say("input", [*fromus, *x.ipv4(), *x.protocol(TCP), x.counter(), x.reset()]),
        say("input", [*fromus, *x.ipv4(), x.counter(), x.prohibit()]),
        say("input", [*fromus, x.counter(), x.drop()]),
        nft.base_chain(table, "forward", hook=Hook.FORWARD, priority=BEFORE_OTHERS),
        say("forward", [*fromus, *x.family(socket.AF_INET, op=x.NOT_EQUAL), x.counter(), x.drop()]),
        say("forward", [*fromus, *x.ipv4(), *x.source_in(network, op=x.NOT_EQUAL), x.counter(), x.drop()]),
        say("forward", [*tous, *x.state(x.State.ESTABLISHED, x.State.RELATED), x.accept()]),
        say("forward", [*tous, x.counter(), x.drop()]),
        nft.base_chain(table, "leaving", hook=Hook.POSTROUTING, priority=TO_SOURCE, kind="nat"),
        say("leaving", [*x.ipv4(), *x.source_in(network), *x.out_link(uplink, op=x.NOT_EQUAL), x.masquerade()]),
    ]


class _Rules:
    """Writes rules of one chain of ``TABLE``."""

    def __init__(self, chain: str) -> None:
        self._chain = chain

    def __call__(self, expressions: Iterable[bytes]) -> Command:
        return nft.rule(TABLE, self._chain, *expressions)


def _rules(chain: str) -> _Rules:
    return _Rules(chain)


class _Refusals:
    """Writes the pair of rules of a refusal: tell, at most so often, and answer."""

    def __init__(self, chain: str) -> None:
        self._say = _Rules(chain)

    def __call__(self, matches: Iterable[bytes], reason: str) -> list[Command]:
        chosen = list(matches)
        return [
            self._say([*chosen, x.limit(EVENTS_PER_S, EVENT_BURST), x.log(DENIED_GROUP, reason)]),
            self._say([*chosen, x.goto("refuse")]),
        ]


def _refusals(chain: str) -> _Refusals:
    return _Refusals(chain)
