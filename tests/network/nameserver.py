"""A DNS server of the world for tests: UDP and TCP, with a table of names, and ways to answer badly."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from typing import Any

from tests.network.stage import DNS_SERVER, Stage, within

from hearth.network import dns
from hearth.network.dns import HEADER, RECORD, Code, Kind, Malformed, Question, encode_name


@dataclass(kw_only=True)
class Nameserver:
    """What it is asked is noted in ``asked``; ``mangle`` may change what it is about to say.

    ``table`` has names → addresses, or the one name that they are an alias of.
    """

    table: dict[str, list[str]]
    ttl_s: int = 300
    asked: list[tuple[str, int]] = field(default_factory=list)
    mangle: Callable[[Question, bytes], list[bytes]] = field(default=lambda _, message: [message])
    transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def connection_lost(self, error: Exception | None) -> None: ...

    def error_received(self, error: Exception) -> None: ...

    def datagram_received(self, data: bytes, peer: Any) -> None:
        try:
            question = dns.parse_question(data)
        except Malformed:
            return
        self.asked.append((question.name, question.kind))
        for message in self.mangle(question, self.answer(question)):
            self.transport.sendto(dns.truncate(question, message), peer)

    async def stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):
            (size,) = struct.unpack(">H", await reader.readexactly(2))
            question = dns.parse_question(await reader.readexactly(size))
            self.asked.append((question.name, question.kind))
            message = self.answer(question)
            writer.write(struct.pack(">H", len(message)) + message)
            await writer.drain()
        writer.close()

    def answer(self, question: Question) -> bytes:
        """Answer as a server does that knows the table: aliases first, then addresses, with compressed names."""
        records: list[bytes] = []
        name, pointer = question.name, b"\xc0\x0c"
        for _ in range(5):
            values = self.table.get(name)
            if values is None:
                return self._message(question, Code.OK if records else Code.NO_NAME, records)
            if values and not values[0][0].isdigit():
                target = encode_name(values[0])
                records.append(pointer + RECORD.pack(Kind.CNAME, 1, self.ttl_s, len(target)) + target)
                name, pointer = values[0], target
                continue
            if question.kind == Kind.A:
                records += [
                    pointer + RECORD.pack(Kind.A, 1, self.ttl_s, 4) + IPv4Address(each).packed for each in values
                ]
            break
        return self._message(question, Code.OK, records)

    def _message(self, question: Question, code: Code, records: list[bytes]) -> bytes:
        return HEADER.pack(question.identity, 0x8180 | code, 1, len(records), 0, 0) + question.wire + b"".join(records)


async def nameserver(scene: Stage, table: dict[str, list[str]], *, ttl_s: int = 300) -> Nameserver:
    """Start it in the stage's world, where the stage's resolver asks."""
    made = Nameserver(table=table, ttl_s=ttl_s)
    await serve(made, scene.world, (DNS_SERVER, 53), scene.stack)
    return made


async def serve(
    made: Nameserver, space: str | None, address: tuple[str, int], stack: contextlib.AsyncExitStack
) -> tuple[str, int]:
    """Start it in a namespace, or in this one on a loopback; gives its address."""

    def listen() -> tuple[socket.socket, socket.socket]:
        datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        datagrams.bind(address)
        return datagrams, socket.create_server(datagrams.getsockname())

    datagrams, streams = await within(space, listen) if space is not None else listen()
    for each in (datagrams, streams):
        each.setblocking(False)
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(lambda: made, sock=datagrams)  # type: ignore[type-var]
    stack.callback(transport.close)
    server = await asyncio.start_server(made.stream, sock=streams)
    stack.callback(server.close)
    host, port = datagrams.getsockname()
    return str(host), int(port)
