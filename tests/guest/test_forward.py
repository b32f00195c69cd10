from __future__ import annotations

import asyncio
import hashlib
import os
import socket
from collections.abc import AsyncIterator

import pytest
from tests.guest.peer import Caller, Peer
from tests.guest.servers import listening

from hearth.errors import GuestFailed, InvalidInput, Unavailable
from hearth.guest.client import Guest
from hearth.guest.forward import ForwardStream
from hearth.wire.frames import FrameType
from hearth.wire.messages import Status


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65_536):
        writer.write(data)
        await writer.drain()
    writer.write(b"|end")


@pytest.fixture
async def echo_port() -> AsyncIterator[int]:
    """A server that gives back what it gets, and says when its client has ended."""
    async with listening(echo) as port:
        yield port


async def read_all(stream: ForwardStream) -> bytes:
    data = b""
    while piece := await stream.read(65_536):
        data += piece
    return data


async def test_bytes_go_both_ways_and_either_way_ends_on_its_own(guest: Guest, echo_port: int) -> None:
    async with asyncio.timeout(60), await guest.forward(echo_port) as stream:
        await stream.write(b"hello")
        assert await stream.read(2) == b"he"
        assert await stream.read(65_536) == b"llo"
        stream.end_write()
        assert await read_all(stream) == b"|end"


async def test_many_bytes_arrive_whole_and_in_order(guest: Guest, echo_port: int) -> None:
    data = os.urandom(8_000_000)

    async def send(stream: ForwardStream) -> None:
        for start in range(0, len(data), 100_000):
            await stream.write(memoryview(data)[start : start + 100_000])
        stream.end_write()

    async with asyncio.timeout(60), await guest.forward(echo_port) as stream, asyncio.TaskGroup() as group:
        group.create_task(send(stream))
        received = await read_all(stream)
    assert hashlib.sha256(received).digest() == hashlib.sha256(data + b"|end").digest()


async def test_a_port_nobody_listens_on_is_unavailable(guest: Guest) -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        with pytest.raises(Unavailable, match="nothing answers on port"):
            await guest.forward(reserved.getsockname()[1])


@pytest.mark.parametrize("port", [0, -1, 65_536])
async def test_a_port_that_cannot_be_is_the_callers_error(guest: Guest, port: int) -> None:
    with pytest.raises(InvalidInput, match="port"):
        await guest.forward(port)


async def test_the_socket_is_handed_over_with_what_came_early(peer: Peer, steady: Guest) -> None:
    def script(caller: Caller) -> None:
        caller.read()
        caller.reply(FrameType.FWD_RESP, Status(status="ok"))
        caller.send(b"early bytes")
        assert caller.socket.recv(10) == b"late"

    peer.serve(script)
    stream = await steady.forward(80)
    assert await stream.read(5) == b"early"
    sock, rest = stream.detach()
    with sock:
        assert rest == b" bytes"
        sock.send(b"late")
    with pytest.raises(GuestFailed):
        await stream.read(1)


async def test_a_pending_read_ends_when_the_stream_is_closed(guest: Guest, echo_port: int) -> None:
    stream = await guest.forward(echo_port)
    reading = asyncio.create_task(stream.read(10))
    await asyncio.sleep(0)
    stream.close()
    with pytest.raises(GuestFailed):
        await reading
