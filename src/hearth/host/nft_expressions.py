"""What rules of ``nft`` are made of: each function gives the bytes of one or several expressions, as matches read a
value into register 1 and compare it (linux/netfilter/nf_tables.h).
"""

from __future__ import annotations

import socket
import struct
from enum import IntEnum
from ipaddress import IPv4Address, IPv4Network

from hearth.host.netlink import attribute, attributes, mac_bytes, nested
from hearth.host.nft import link_key, long_number, number, text

REGISTER = number(1)
SECOND_REGISTER = number(2)
EQUAL = 0
NOT_EQUAL = 1
LINK_LAYER = 0
NETWORK = 1
TRANSPORT = 2
INVERTED = 1
DROP = 0
ACCEPT = 1
JUMP = -3
GOTO = -4
RETURN = -5
ADMIN_PROHIBITED = 3
"""NFT_REJECT_ICMPX_ADMIN_PROHIBITED"""
SNAT = 0
DNAT = 1


class Meta(IntEnum):
    IN_NAME = 6
    OUT_NAME = 7
    FAMILY = 15
    PROTOCOL = 16


class Conntrack(IntEnum):
    STATE = 0
    DIRECTION = 1
    MARK = 3
    DESTINATION_PORT = 12
    SOURCE = 19
    DESTINATION = 20


class State(IntEnum):
    """Bits of a packet's state (net/netfilter/nf_conntrack.h, NF_CT_STATE_BIT)."""

    INVALID = 1
    ESTABLISHED = 2
    RELATED = 4
    NEW = 8
    UNTRACKED = 64


def expression(name: str, *fields: bytes) -> bytes:
    """Encode one expression from its encoded attributes."""
    return attribute(1, text(name)) + nested(2, b"".join(fields))


def value(kind: int, data: bytes) -> bytes:
    return nested(kind, attribute(1, data))


def compare(data: bytes, *, op: int = EQUAL) -> bytes:
    return expression("cmp", attributes((1, REGISTER), (2, number(op))), value(3, data))


def load_meta(key: Meta, register: bytes = REGISTER) -> bytes:
    return expression("meta", attributes((1, register), (2, number(key))))


def load_payload(base: int, offset: int, length: int) -> bytes:
    return expression("payload", attributes((1, REGISTER), (2, number(base)), (3, number(offset)), (4, number(length))))


def in_link(name: str, *, op: int = EQUAL) -> list[bytes]:
    return [load_meta(Meta.IN_NAME), compare(link_key(name), op=op)]


def out_link(name: str, *, op: int = EQUAL) -> list[bytes]:
    return [load_meta(Meta.OUT_NAME), compare(link_key(name), op=op)]


def family(number_: int, *, op: int = EQUAL) -> list[bytes]:
    """Match the address family: AF_INET or AF_INET6, which are netfilter's numbers too."""
    return [load_meta(Meta.FAMILY), compare(bytes([number_]), op=op)]


def ipv4() -> list[bytes]:
    return family(socket.AF_INET)


def protocol(number_: int) -> list[bytes]:
    """Match the transport protocol."""
    return [load_meta(Meta.PROTOCOL), compare(bytes([number_]))]


def source(address: IPv4Address, *, op: int = EQUAL) -> list[bytes]:
    """Match the source; only after ``ipv4``."""
    return [load_payload(NETWORK, 12, 4), compare(address.packed, op=op)]


def destination(address: IPv4Address, *, op: int = EQUAL) -> list[bytes]:
    return [load_payload(NETWORK, 16, 4), compare(address.packed, op=op)]


def source_in(network: IPv4Network, *, op: int = EQUAL) -> list[bytes]:
    return _within(12, network, op)


def destination_in(network: IPv4Network, *, op: int = EQUAL) -> list[bytes]:
    return _within(16, network, op)


def _within(offset: int, network: IPv4Network, op: int) -> list[bytes]:
    return [load_payload(NETWORK, offset, 4), *_masked(network, op)]


def sender_mac(mac: str, *, op: int = EQUAL) -> list[bytes]:
    """Match the Ethernet source; only where frames come in from an Ethernet link."""
    return [load_payload(LINK_LAYER, 6, 6), compare(mac_bytes(mac), op=op)]


def port(number_: int) -> list[bytes]:
    """Match the destination port; only after ``protocol`` TCP or UDP."""
    return [load_payload(TRANSPORT, 2, 2), compare(struct.pack(">H", number_))]


def in_set(name: str, *, inverted: bool = False, identity: int = 0) -> bytes:
    """Match what register 1 holds against a set of the same table."""
    fields = attributes((1, text(name)), (2, REGISTER))
    if identity:
        fields += attribute(4, number(identity))
    if inverted:
        fields += attribute(5, number(INVERTED))
    return expression("lookup", fields)


def link_in_set(key: Meta, name: str) -> list[bytes]:
    return [load_meta(key), in_set(name)]


def link_pair_in_set(name: str) -> list[bytes]:
    """Match (incoming, outgoing) link against a set of such pairs."""
    return [load_meta(Meta.IN_NAME), load_meta(Meta.OUT_NAME, SECOND_REGISTER), in_set(name)]


def source_in_set(name: str, *, inverted: bool = False) -> list[bytes]:
    return [load_payload(NETWORK, 12, 4), in_set(name, inverted=inverted)]


def destination_in_set(name: str, *, inverted: bool = False) -> list[bytes]:
    return [load_payload(NETWORK, 16, 4), in_set(name, inverted=inverted)]


def load_ct(key: Conntrack) -> bytes:
    return expression("ct", attributes((1, REGISTER), (2, number(key))))


def state(*states: State) -> list[bytes]:
    """Match packets in one of these states. The bits lie in host byte order."""
    bits = struct.pack("=I", sum(states))
    mask = expression(
        "bitwise", attributes((1, REGISTER), (2, REGISTER), (3, number(4))), value(4, bits), value(5, bytes(4))
    )
    return [load_ct(Conntrack.STATE), mask, compare(bytes(4), op=NOT_EQUAL)]


def reply(*, op: int = EQUAL) -> list[bytes]:
    """Match packets that go against the direction of their connection's first one."""
    return [load_ct(Conntrack.DIRECTION), compare(b"\1", op=op)]


def mark(number_: int) -> list[bytes]:
    return [load_ct(Conntrack.MARK), compare(struct.pack("=I", number_))]


def set_mark(number_: int) -> list[bytes]:
    """Mark the packet's connection."""
    return [
        expression("immediate", attribute(1, REGISTER), value(2, struct.pack("=I", number_))),
        expression("ct", attributes((2, number(Conntrack.MARK)), (4, REGISTER))),
    ]


def called_in_set(name: str) -> list[bytes]:
    """Match the address that the connection's first packet was sent to, whichever way this packet goes."""
    return [_load_original(Conntrack.DESTINATION), in_set(name)]


def called_in(network: IPv4Network, *, op: int = EQUAL) -> list[bytes]:
    """Like ``called_in_set`` for one network."""
    return [_load_original(Conntrack.DESTINATION), *_masked(network, op)]


def caller_in(network: IPv4Network, *, op: int = EQUAL) -> list[bytes]:
    """Match the address that the connection's first packet came from."""
    return [_load_original(Conntrack.SOURCE), *_masked(network, op)]


def called_port(low: int, high: int) -> list[bytes]:
    """Match the port that the connection was made to against a range."""
    return [_load_original(Conntrack.DESTINATION_PORT), _between(low, high)]


def more_connections_than(count: int) -> bytes:
    """Match when more connections than ``count`` that came to this rule are open; only for new ones."""
    return expression("connlimit", attributes((1, number(count)), (2, number(INVERTED))))


def _load_original(key: Conntrack) -> bytes:
    return expression("ct", attributes((1, REGISTER), (2, number(key)), (3, b"\0")))


def _masked(network: IPv4Network, op: int) -> list[bytes]:
    mask = expression(
        "bitwise",
        attributes((1, REGISTER), (2, REGISTER), (3, number(4))),
        value(4, network.netmask.packed),
        value(5, bytes(4)),
    )
    return [mask, compare(network.network_address.packed, op=op)]


def _between(low: int, high: int) -> bytes:
    first, last = struct.pack(">H", low), struct.pack(">H", high)
    return expression("range", attributes((1, REGISTER), (2, number(EQUAL))), value(3, first), value(4, last))


def limit(per_second: int, burst: int) -> bytes:
    """Match at most ``per_second`` packets a second, ``burst`` of them at once."""
    return expression(
        "limit",
        attributes((1, long_number(per_second)), (2, long_number(1)), (3, number(burst)), (4, number(0))),
    )


def counter() -> bytes:
    return expression("counter", attributes((1, long_number(0)), (2, long_number(0))))


def log(group: int, prefix: str, length: int = 64) -> bytes:
    """Tell whoever listens to the log group: the first ``length`` bytes of the packet and ``prefix``."""
    return expression(
        "log", attributes((1, struct.pack(">H", group)), (2, text(prefix)), (3, number(length)), (4, b"\0\1"))
    )


def verdict(code: int, chain: str | None = None) -> bytes:
    fields = attribute(1, number(code)) + (b"" if chain is None else attribute(2, text(chain)))
    return expression("immediate", attribute(1, number(0)), nested(2, nested(2, fields)))


def accept() -> bytes:
    return verdict(ACCEPT)


def drop() -> bytes:
    return verdict(DROP)


def leave() -> bytes:
    """Go back to the chain that jumped here."""
    return verdict(RETURN)


def jump(chain: str) -> bytes:
    return verdict(JUMP, chain)


def goto(chain: str) -> bytes:
    return verdict(GOTO, chain)


def reset() -> bytes:
    """Answer a TCP segment with a reset; only after ``protocol(IPPROTO_TCP)``."""
    return expression("reject", attribute(1, number(1)))


def prohibit() -> bytes:
    """Answer with ICMP: communication administratively prohibited (RFC 1812, section 5.2.7.1)."""
    return expression("reject", attribute(1, number(2)) + attribute(2, bytes([ADMIN_PROHIBITED])))


def translate_source(address: IPv4Address) -> list[bytes]:
    return _translate(SNAT, address)


def translate_destination(address: IPv4Address) -> list[bytes]:
    return _translate(DNAT, address)


def _translate(kind: int, address: IPv4Address) -> list[bytes]:
    return [
        expression("immediate", attribute(1, REGISTER), value(2, address.packed)),
        expression("nat", attributes((1, number(kind)), (2, number(socket.AF_INET)), (3, REGISTER), (4, REGISTER))),
    ]


def masquerade() -> bytes:
    """Translate the source to the outgoing link's address."""
    return expression("masq")


def mark_by_source() -> list[bytes]:
    """Mark the packet's connection with the four bytes of its source address, for ``conntrack.forget``."""
    return [
        load_payload(NETWORK, 12, 4),
        expression("ct", attributes((2, number(Conntrack.MARK)), (4, REGISTER))),
    ]
