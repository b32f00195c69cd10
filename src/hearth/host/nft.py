"""nf_tables by netlink: one batch is one transaction, all of it or nothing (linux/netfilter/nf_tables.h).

Commands are pure values; ``NftSocket`` carries a batch of them to the namespace of the thread that opened it.
What rules are made of: ``nft_expressions``. Why neither the ``nft`` program nor a library:
docs/decisions/network-nftables.md.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv4Network
from types import TracebackType
from typing import Self

from hearth.errors import HostUnfit
from hearth.host.netlink import (
    ERROR,
    HEADER,
    NLM_F_ACK,
    NLM_F_APPEND,
    NLM_F_CREATE,
    NLM_F_DUMP,
    NLM_F_REQUEST,
    NLMSG_DONE,
    NLMSG_ERROR,
    attribute,
    attributes,
    messages,
    nested,
    parse_attributes,
)

NETLINK_NETFILTER = 12
SUBSYSTEM = 10
"""NFNL_SUBSYS_NFTABLES"""
BATCH_BEGIN = 0x10
BATCH_END = 0x11
GENERIC = struct.Struct(">BBH")
"""struct nfgenmsg: family, version, resource id."""
NFPROTO_INET = 1
NFPROTO_ARP = 3
SO_SNDBUFFORCE = 32
ELEMENTS_PER_MESSAGE = 500
"""An attribute's length has 16 bits; an element is at most some 60 bytes."""
COMMENT = 0
"""NFTNL_UDATA_TABLE_COMMENT: what ``nft list`` shows as the table's comment (libnftnl, udata.h)."""
NATIVE_ORDER = struct.pack("=BBI", 0, 4, 1)
"""NFTNL_UDATA_SET_KEYBYTEORDER: the host's"""
END_OF_SPACE = 1 << 32

LISTINGS_MAX = 20
LISTING_PAUSE_S = 0.002
"""Between two listings, for the kernel to go on growing the set."""


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


class NftSocket:
    """A blocking nf_tables socket in the network namespace of the thread that makes it. The kernel answers at once."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER)
        self._sequence = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def commit(self, commands: Sequence[Command]) -> None:
        """Carry out all commands or none.

        Raises:
            HostUnfit: the kernel lacks a part that a command needs.
            OSError: the kernel refused one; ``errno`` is its reason, the text names the command.
        """
        if not commands:
            return
        first = self._sequence + 1
        last = first + len(commands)
        self._sequence = last + 1
        parts = [frame(BATCH_BEGIN, NLM_F_REQUEST, first, 0, SUBSYSTEM, b"")]
        for place, command in enumerate(commands, first + 1):
            parts.append(command.encode(place, NLM_F_ACK if place == last else 0))
        parts.append(frame(BATCH_END, NLM_F_REQUEST, self._sequence, 0, SUBSYSTEM, b""))
        batch = b"".join(parts)
        if len(batch) > 100_000:
            self._socket.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, 2 * len(batch))
        self._socket.send(batch)
        failed = self._first_failure(first, last)
        if failed is not None:
            place, code = failed
            what = "batch" if place <= first else commands[min(place, last) - first - 1].name
            raise _refusal(code, what)

    def comment(self, table_name: str, *, family: int = NFPROTO_INET) -> str | None:
        """Tell a table's comment: "" without one, None when there is no such table."""
        self._sequence += 1
        command = Command(kind=Message.GETTABLE, body=attribute(1, text(table_name)), name="get", family=family)
        self._socket.send(command.encode(self._sequence))
        answer = self._socket.recv(65536)
        size, kind, _, _, _ = HEADER.unpack_from(answer)
        if kind == NLMSG_ERROR:
            (status,) = ERROR.unpack_from(answer, HEADER.size)
            if status == -2:  # ENOENT
                return None
            raise _refusal(-status, f"table {table_name}")
        for key, value in parse_attributes(answer[HEADER.size + GENERIC.size : size]):
            if key == 6 and len(value) >= 2 and value[0] == COMMENT:
                return value[2 : 2 + value[1]].rstrip(b"\0").decode("ascii", "replace")
        return ""

    def keys(self, table_name: str, set_name: str) -> set[bytes]:
        """Tell the keys a set holds now.

        While the kernel grows a set that has got many, a listing misses some without a word (rhashtable_walk_start(9)
        in nft_rhash_walk): it is asked again until two answers agree.
        """
        before = self._list_keys(table_name, set_name)
        for _ in range(LISTINGS_MAX):
            time.sleep(LISTING_PAUSE_S)
            now = self._list_keys(table_name, set_name)
            if now == before:
                break
            before = now
        return before

    def _list_keys(self, table_name: str, set_name: str) -> set[bytes]:
        self._sequence += 1
        body = attributes((1, text(table_name)), (2, text(set_name)))
        command = Command(kind=Message.GETSETELEM, body=body, name="dump")
        self._socket.send(command.encode(self._sequence, NLM_F_DUMP))
        found: set[bytes] = set()
        while True:
            answer = self._socket.recv(1 << 18)
            for kind, _, payload in messages(answer):
                if kind == NLMSG_DONE:
                    return found
                if kind == NLMSG_ERROR:
                    (status,) = ERROR.unpack_from(payload)
                    raise _refusal(-status, f"set {set_name}")
                found |= _keys(payload[GENERIC.size :])

    def _first_failure(self, begin: int, last: int) -> tuple[int, int] | None:
        """Read until the word about the last command, or about the batch itself, is there."""
        failed: tuple[int, int] | None = None
        while True:
            ended = False
            for kind, sequence, payload in messages(self._socket.recv(1 << 18)):
                if kind == NLMSG_ERROR:
                    (status,) = ERROR.unpack_from(payload)
                    if status and failed is None:
                        failed = (sequence, -status)
                    ended = ended or sequence in (begin, last)
            if ended:
                return failed


def _keys(body: bytes) -> set[bytes]:
    found = set()
    for kind, value in parse_attributes(body):
        if kind == 3:
            for _, element in parse_attributes(value):
                fields = dict(parse_attributes(element))
                key = dict(parse_attributes(fields.get(1, b""))).get(1)
                if key is not None and 3 not in fields:
                    found.add(key)
    return found


def _refusal(code: int, what: str) -> OSError | HostUnfit:
    if code in (93, 95):  # EPROTONOSUPPORT, EOPNOTSUPP
        return HostUnfit(
            "this kernel's firewall lacks a part that isolation needs",
            details=f"{what}: {os.strerror(code)}",
            resolution="use a kernel with nf_tables (Linux 5.10 or later), its NAT, reject, log and limit",
        )
    return OSError(code, os.strerror(code), f"nf_tables {what}")
