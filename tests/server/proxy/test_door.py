"""The daemon's HTTP protocol alone: clients that take their time."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from functools import partial

import pytest
from starlette.types import ASGIApp, Receive, Scope, Send

from hearth.server.proxy.crowd import AddressDoor, Visitors
from hearth.server.proxy.door import MAX_PIPELINED, Door
from hearth.server.proxy.options import PublicOptions
from hearth.server.proxy.serving import PublicServer
from hearth.server.proxy.trust import Trust, read_networks

WAIT_S = 60


class Impatient(Door):
    """A door that gives a head a tenth of a second."""

    head_s = 0.1


class Waiting:
    """Answers nothing and waits for the client to leave."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.left = asyncio.Event()

    async def __call__(self, _scope: Scope, receive: Receive, _send: Send) -> None:
        self.begun.set()
        while (await receive())["type"] != "http.disconnect":
            pass
        self.left.set()


async def whole_body(_scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with what was sent."""
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body += message.get("body", b"")
        more = message.get("more_body", False)
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@contextlib.asynccontextmanager
async def serving(app: ASGIApp = whole_body, door: Callable[..., Door] = Impatient) -> AsyncIterator[int]:
    server = PublicServer(app, PublicOptions(), None)
    server.config.http_protocol_class = door  # type: ignore[assignment]  # a class is only called
    with socket.create_server(("127.0.0.1", 0)) as listener:
        task = asyncio.create_task(server.serve([listener]), name="server")
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            await task


async def test_a_head_that_does_not_come_to_an_end_is_not_waited_for() -> None:
    async with serving() as port, asyncio.timeout(WAIT_S):
        for begun in (b"", b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: "):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(begun)
            assert (await reader.read()).startswith(b"HTTP/1.1 408 ")
            writer.close()
            await writer.wait_closed()


async def test_a_head_that_trickles_in_is_bounded_as_a_whole() -> None:
    async with serving() as port, asyncio.timeout(WAIT_S):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        answer = asyncio.create_task(reader.read())
        writer.write(b"GET / HTTP/1.1\r\n")
        while not answer.done():
            writer.write(b"X-Drop: 1\r\n")
            await asyncio.wait((answer,), timeout=0.01)
        with contextlib.suppress(ConnectionError):  # what came after the end resets it, and may overtake the words
            assert (await answer).startswith(b"HTTP/1.1 408 ")
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def test_a_body_and_the_next_request_may_take_longer_than_a_head() -> None:
    begun = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\na"
    async with serving() as port, asyncio.timeout(WAIT_S):
        client = socket.create_connection(("127.0.0.1", port))
        client.sendall(begun)  # before the server has accepted: nothing can come between
        reader, writer = await asyncio.open_connection(sock=client)
        for number in range(2):
            if number:
                writer.write(begun)
            await asyncio.sleep(2 * Impatient.head_s)
            writer.write(b"b")
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
            assert await reader.readexactly(2) == b"ab"
            await asyncio.sleep(2 * Impatient.head_s)
        writer.close()
        await writer.wait_closed()


async def test_requests_that_wait_behind_another_are_bounded() -> None:
    one = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
    async with serving() as port, asyncio.timeout(WAIT_S):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(one * (MAX_PIPELINED // 2))
        for _ in range(MAX_PIPELINED // 2):
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        writer.close()
        await writer.wait_closed()
    app = Waiting()
    async with serving(app) as port, asyncio.timeout(WAIT_S):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(one * 5_000)
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b"", "a word would seem to be the answer to the first"
        await app.left.wait()
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def test_who_leaves_with_further_requests_waiting_is_seen_to_leave() -> None:
    app = Waiting()
    async with serving(app) as port, asyncio.timeout(WAIT_S):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 3)
        await app.begun.wait()
        writer.close()
        await writer.wait_closed()
        await app.left.wait()


@pytest.mark.parametrize(("trusted", "entered"), [([], 3), (["127.0.0.1"], 6)])
async def test_an_address_may_hold_only_so_many_connections_and_a_trusted_proxy_any(
    trusted: list[str], entered: int
) -> None:
    visitors = Visitors(Trust(networks=read_networks(trusted)), limit=3)
    request = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
    async with serving(door=partial(AddressDoor, visitors)) as port, asyncio.timeout(WAIT_S):
        for _ in range(2):  # who leaves makes room
            connections = [await asyncio.open_connection("127.0.0.1", port) for _ in range(6)]
            served = 0
            for reader, writer in connections:
                with contextlib.suppress(ConnectionError):
                    writer.write(request)
                    served += (await reader.read(12)) == b"HTTP/1.1 200"
            assert served == entered
            for _, writer in connections:
                writer.close()
                with contextlib.suppress(ConnectionError):
                    await writer.wait_closed()
            while len(visitors):
                await asyncio.sleep(0.01)
