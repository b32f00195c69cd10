"""Asking the world: a question to the servers that were configured, with one bounded memory of answers per owner."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
import struct
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address

from hearth.errors import InvalidInput
from hearth.network import dns
from hearth.network.dns import Answer, Code, Malformed

ATTEMPT_S = 2.0
MOST_ANSWERS = 2048
LARGEST_KEPT_BYTES = 4096
LONGEST_KEPT_S = 3600
LONGEST_DENIAL_KEPT_S = 30

Server = tuple[str, int]
"""IPv4 address and port."""
Opener = Callable[[socket.SocketKind], Awaitable[socket.socket]]
"""Gives a non-blocking socket in the namespace from which the servers are reached."""


class NoAnswer(Exception):
    """No server gave an answer that could be used."""


async def open_here(kind: socket.SocketKind) -> socket.socket:
    """Give a socket in the daemon's own namespace."""
    made = socket.socket(socket.AF_INET, kind)
    made.setblocking(False)
    return made


def servers_in(resolv_conf: str) -> list[Server]:
    """Read the servers of a resolv.conf, without those on a loopback: they are services of the host."""
    found: list[Server] = []
    for line in resolv_conf.splitlines():
        words = line.split()
        if len(words) >= 2 and words[0] == "nameserver":
            with contextlib.suppress(AddressValueError):
                address = IPv4Address(words[1])
                if not address.is_loopback and not address.is_unspecified:
                    found.append((str(address), 53))
    return found


def parse_server(text: str) -> Server:
    """Read ``192.0.2.1`` or ``192.0.2.1:5353``.

    Raises:
        InvalidInput: it is neither.
    """
    host, _, port = text.partition(":")
    try:
        number = int(port or "53")
        if not 0 < number < 1 << 16:
            raise ValueError("a port has 1 to 65535")
        return str(IPv4Address(host)), number
    except ValueError as error:
        raise InvalidInput(
            "invalid DNS server", details=str(error), resolution="use 192.0.2.1 or 192.0.2.1:5353", field="dns_servers"
        ) from error


@dataclass(frozen=True, kw_only=True)
class Kept:
    """An answer and when it came and ends (seconds of the loop's clock)."""

    answer: Answer
    came_s: float
    ends_s: float


class Memory:
    """Answers of the world, the least used forgotten first. One for each owner: what is in it tells what was asked."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, int], Kept] = OrderedDict()

    def get(self, name: str, kind: int, now_s: float) -> Kept | None:
        kept = self._kept.get((name, kind))
        if kept is None or kept.ends_s <= now_s:
            return None
        self._kept.move_to_end((name, kind))
        return kept

    def put(self, name: str, kind: int, answer: Answer, now_s: float) -> None:
        """Keep an answer as long as the shortest of its records; one without records, or a failure, not."""
        if answer.code not in (Code.OK, Code.NO_NAME) or not answer.records or len(answer.message) > LARGEST_KEPT_BYTES:
            return
        longest_s = LONGEST_KEPT_S if answer.answers else LONGEST_DENIAL_KEPT_S
        ttl_s = min(longest_s, *(record.ttl_s for record in answer.records))
        self._kept[name, kind] = Kept(answer=answer, came_s=now_s, ends_s=now_s + ttl_s)
        self._kept.move_to_end((name, kind))
        while len(self._kept) > MOST_ANSWERS:
            self._kept.popitem(last=False)


class Upstream:
    """Asks servers in turn, each from a fresh port with a fresh number (RFC 5452)."""

    def __init__(self, servers: Sequence[Server], open_socket: Opener = open_here) -> None:
        self._servers = tuple(servers)
        self._open = open_socket

    async def ask(self, question: bytes) -> Answer:
        """Ask a question section, as bytes, and give the first answer that fits it.

        Raises:
            NoAnswer: nobody gave one in time.
        """
        for server in self._servers:
            with contextlib.suppress(OSError, Malformed, TimeoutError, asyncio.IncompleteReadError):
                async with asyncio.timeout(ATTEMPT_S):
                    found = await self._by_datagram(server, question)
                    if found.is_truncated:
                        found = await self._by_stream(server, question)
                if found.code in (Code.OK, Code.NO_NAME):
                    return found
        raise NoAnswer

    async def _by_datagram(self, server: Server, question: bytes) -> Answer:
        identity = secrets.randbits(16)
        loop = asyncio.get_running_loop()
        datagrams = await self._open(socket.SOCK_DGRAM)
        with datagrams:
            await loop.sock_connect(datagrams, server)
            await loop.sock_sendall(datagrams, dns.query(identity, question))
            while True:
                message = await loop.sock_recv(datagrams, 65535)
                # What does not fit is somebody's guess, or late: the right one may still come.
                with contextlib.suppress(Malformed):
                    return _fitting(message, identity, question)

    async def _by_stream(self, server: Server, question: bytes) -> Answer:
        identity = secrets.randbits(16)
        loop = asyncio.get_running_loop()
        stream = await self._open(socket.SOCK_STREAM)
        with stream:
            await loop.sock_connect(stream, server)
            asked = dns.query(identity, question)
            await loop.sock_sendall(stream, struct.pack(">H", len(asked)) + asked)
            (size,) = struct.unpack(">H", await _exactly(stream, 2))
            return _fitting(await _exactly(stream, size), identity, question)


async def _exactly(stream: socket.socket, size: int) -> bytes:
    loop = asyncio.get_running_loop()
    read = b""
    while len(read) < size:
        more = await loop.sock_recv(stream, size - len(read))
        if not more:
            raise Malformed("the stream ended early")
        read += more
    return read


def _fitting(message: bytes, identity: int, question: bytes) -> Answer:
    found = dns.parse_answer(message)
    if found.identity != identity or found.question.lower() != question.lower():
        raise Malformed("the answer to another question")
    return found
