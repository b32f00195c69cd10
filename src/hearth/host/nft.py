"""nf_tables by netlink: one batch is one transaction, all of it or nothing (linux/netfilter/nf_tables.h).

Commands are pure values; ``nft_socket`` carries a batch of them to the namespace of the thread that opened it.
What rules are made of: ``nft_expressions``. Why neither the ``nft`` program nor a library:
docs/decisions/network-nftables.md.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv4Network

from hearth.host.netlink import (
    HEADER,
    NLM_F_APPEND,
    NLM_F_CREATE,
    NLM_F_REQUEST,
    attribute,
    attributes,
    nested,
)

NETLINK_NETFILTER = 12
SUBSYSTEM = 10
"""NFNL_SUBSYS_NFTABLES"""
GENERIC = struct.Struct(">BBH")
"""struct nfgenmsg: family, version, resource id."""
NFPROTO_INET = 1
NFPROTO_ARP = 3
ELEMENTS_PER_MESSAGE = 500
"""An attribute's length has 16 bits; an element is at most some 60 bytes."""
COMMENT = 0
"""NFTNL_UDATA_TABLE_COMMENT: what ``nft list`` shows as the table's comment (libnftnl, udata.h)."""
NATIVE_ORDER = struct.pack("=BBI", 0, 4, 1)
"""NFTNL_UDATA_SET_KEYBYTEORDER: the host's"""
END_OF_SPACE = 1 << 32


class Message(IntEnum):
    NEWTABLE = 0
    GETTABLE = 1
    DELTABLE = 2
    NEWCHAIN = 3
    NEWRULE = 6
    DELRULE = 8
    NEWSET = 9
    NEWSETELEM = 12
    GETSETELEM = 13
    DELSETELEM = 14


class Hook(IntEnum):
    """Where a chain looks at packets (linux/netfilter.h)."""

    PREROUTING = 0
    INPUT = 1
    FORWARD = 2
    OUTPUT = 3
    POSTROUTING = 4


class Policy(IntEnum):
    """What becomes of a packet no rule of a chain decided about."""

    DROP = 0
    ACCEPT = 1


@dataclass(frozen=True, kw_only=True)
class KeyType:
    """What a set holds: nft's number for the type, for its listing, and bytes."""

    number: int
    length: int
    is_native: bool = False
    """In the host's byte order, which changes nothing but nft's listing."""


ADDRESS_KEY = KeyType(number=7, length=4)
LINK_KEY = KeyType(number=41, length=16, is_native=True)
LINK_PAIR_KEY = KeyType(number=41 << 6 | 41, length=32)

SET_INTERVAL = 0x04
SET_TIMEOUT = 0x10
SET_CONCAT = 0x80
ELEMENT_END = 1


@dataclass(frozen=True, kw_only=True)
class Command:
    """One message of a batch, still without its headers; ``name`` tells people what failed."""

    kind: Message
    body: bytes
    name: str
    family: int = NFPROTO_INET
    flags: int = 0

    def encode(self, sequence: int, flags: int = 0) -> bytes:
        """Give the bytes to send."""
        return frame(
            SUBSYSTEM << 8 | self.kind, self.flags | flags | NLM_F_REQUEST, sequence, self.family, 0, self.body
        )


@dataclass(frozen=True, kw_only=True)
class Element:
    """One element of a set; ``timeout_ms`` where the set's elements end by themselves."""

    key: bytes
    timeout_ms: int | None = None
    is_end: bool = False


def frame(kind: int, flags: int, sequence: int, family: int, resource: int, body: bytes) -> bytes:
    """Give one netfilter message: netlink header, nfgenmsg, attributes."""
    size = HEADER.size + GENERIC.size + len(body)
    return HEADER.pack(size, kind, flags, sequence, 0) + GENERIC.pack(family, 0, resource) + body


def text(value: str) -> bytes:
    return value.encode("ascii") + b"\0"


def number(value: int) -> bytes:
    """Encode 32 bits as nf_tables has them: most significant byte first."""
    return struct.pack(">i" if value < 0 else ">I", value)


def long_number(value: int) -> bytes:
    return struct.pack(">Q", value)


def table(name: str, *, comment: str = "", family: int = NFPROTO_INET) -> Command:
    """Ask for a table; one that is there already is fine and keeps what it holds."""
    body = attribute(1, text(name))
    if comment:
        encoded = text(comment)
        body += attribute(6, bytes([COMMENT, len(encoded)]) + encoded)
    return Command(kind=Message.NEWTABLE, body=body, name=f"table {name}", family=family, flags=NLM_F_CREATE)


def fresh_table(name: str, *, comment: str = "", family: int = NFPROTO_INET) -> list[Command]:
    """Ask for an empty table, whether or not it was there: no packet sees the moment between."""
    return [table(name, family=family), delete_table(name, family=family), table(name, comment=comment, family=family)]


def delete_table(name: str, *, family: int = NFPROTO_INET) -> Command:
    return Command(kind=Message.DELTABLE, body=attribute(1, text(name)), name=f"delete table {name}", family=family)


def base_chain(
    table_name: str,
    name: str,
    *,
    hook: Hook,
    priority: int,
    policy: Policy = Policy.ACCEPT,
    kind: str = "filter",
    family: int = NFPROTO_INET,
) -> Command:
    """Ask for a chain that the kernel calls."""
    body = attributes(
        (1, text(table_name)),
        (3, text(name)),
        (5, number(policy)),
        (7, text(kind)),
    ) + nested(4, attributes((1, number(hook)), (2, number(priority))))
    return Command(kind=Message.NEWCHAIN, body=body, name=f"chain {name}", family=family, flags=NLM_F_CREATE)


def chain(table_name: str, name: str) -> Command:
    """Ask for a chain that other chains jump to."""
    body = attributes((1, text(table_name)), (3, text(name)))
    return Command(kind=Message.NEWCHAIN, body=body, name=f"chain {name}", flags=NLM_F_CREATE)


def rule(table_name: str, chain_name: str, *expressions: bytes, family: int = NFPROTO_INET) -> Command:
    """Ask for a rule at the end of a chain."""
    body = attributes((1, text(table_name)), (2, text(chain_name))) + nested(
        4, b"".join(nested(1, expression) for expression in expressions)
    )
    return Command(
        kind=Message.NEWRULE, body=body, name=f"rule in {chain_name}", family=family, flags=NLM_F_CREATE | NLM_F_APPEND
    )


def new_set(table_name: str, name: str, key: KeyType, *, flags: int = 0, identity: int = 1, size: int = 0) -> Command:
    """Ask for a named set. ``identity`` is unique in its batch; ``size`` bounds its elements (ENFILE beyond), 0 not."""
    body = attributes(
        (1, text(table_name)),
        (2, text(name)),
        (3, number(flags)),
        (4, number(key.number)),
        (5, number(key.length)),
        (10, number(identity)),
    )
    if key.is_native:
        body += attribute(13, NATIVE_ORDER)
    description = attribute(1, number(size)) if size else b""
    if flags & SET_CONCAT:
        description += nested(2, b"".join(nested(1, attribute(1, number(16))) for _ in range(key.length // 16)))
    if description:
        body += nested(9, description)
    return Command(kind=Message.NEWSET, body=body, name=f"set {name}", flags=NLM_F_CREATE)


def add_elements(table_name: str, name: str, elements: Iterable[Element]) -> list[Command]:
    """Ask for elements in a set, in as many messages as they need."""
    return [
        Command(kind=Message.NEWSETELEM, body=body, name=f"elements of {name}", flags=NLM_F_CREATE)
        for body in _element_bodies(table_name, name, elements)
    ]


def delete_elements(table_name: str, name: str, elements: Iterable[Element]) -> list[Command]:
    """Ask for elements to be taken out; one that is not there fails the batch."""
    return [
        Command(kind=Message.DELSETELEM, body=body, name=f"elements of {name}")
        for body in _element_bodies(table_name, name, elements)
    ]


def flush_set(table_name: str, name: str) -> Command:
    body = attributes((1, text(table_name)), (2, text(name)))
    return Command(kind=Message.DELSETELEM, body=body, name=f"flush {name}")


def ranges(networks: Iterable[IPv4Network]) -> list[Element]:
    """Give the elements of an interval set that cover ``networks``, which may not overlap: each start, each end."""
    elements: list[Element] = []
    for network in sorted(networks):
        start = int(network.network_address)
        end = start + network.num_addresses
        elements.append(Element(key=struct.pack(">I", start)))
        if end < END_OF_SPACE:
            elements.append(Element(key=struct.pack(">I", end), is_end=True))
    return elements


def link_key(*names: str) -> bytes:
    """Encode interface names as sets hold them: 16 bytes each, zero-padded."""
    return b"".join(name.encode("ascii").ljust(16, b"\0") for name in names)


def _element_bodies(table_name: str, name: str, elements: Iterable[Element]) -> list[bytes]:
    encoded = [_element(element) for element in elements]
    head = attributes((1, text(table_name)), (2, text(name)))
    return [
        head + nested(3, b"".join(encoded[at : at + ELEMENTS_PER_MESSAGE]))
        for at in range(0, len(encoded), ELEMENTS_PER_MESSAGE)
    ]


def _element(element: Element) -> bytes:
    body = nested(1, attribute(1, element.key))
    if element.is_end:
        body += attribute(3, number(ELEMENT_END))
    if element.timeout_ms is not None:
        body += attribute(4, long_number(element.timeout_ms))
    return nested(1, body)
