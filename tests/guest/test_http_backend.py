from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import httpcore
import pytest
from tests.agent.conftest import wait_until
from tests.guest.peer import Caller, Peer
from tests.guest.servers import listening

from hearth.guest.client import Guest
from hearth.guest.http_backend import GuestBackend
from hearth.wire.frames import FrameType
from hearth.wire.messages import Status


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer requests with their path and body, on one connection while the client keeps it."""
    while head := await reader.readuntil(b"\r\n\r\n"):
        path = head.split(b" ")[1]
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0)
        body = path + b" " + await reader.readexactly(length)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))


@pytest.fixture
async def http_port() -> AsyncIterator[int]:
    async with listening(serve) as port:
        yield port


async def test_requests_are_answered_inside_the_guest_over_one_connection(guest: Guest, http_port: int) -> None:
    async with httpcore.AsyncConnectionPool(network_backend=GuestBackend(guest)) as pool:
        for number in range(3):
            response = await pool.request("POST", f"http://any.name:{http_port}/{number}", content=b"x" * 100_000)
            assert response.status == 200
            assert response.content == b"/%d " % number + b"x" * 100_000
        assert len(pool.connections) == 1


async def test_a_port_nobody_listens_on_is_a_connect_error(guest: Guest) -> None:
    async with httpcore.AsyncConnectionPool(network_backend=GuestBackend(guest)) as pool:
        with socket.socket() as reserved:
            reserved.bind(("127.0.0.1", 0))
            with pytest.raises(httpcore.ConnectError):
                await pool.request("GET", f"http://sandbox:{reserved.getsockname()[1]}/")


async def test_a_server_that_stays_silent_is_a_read_timeout(peer: Peer, steady: Guest) -> None:
    def script(caller: Caller) -> None:
        caller.read()
        caller.reply(FrameType.FWD_RESP, Status(status="ok"))
        while caller.socket.recv(65_536):
            pass

    peer.serve(script)
    async with httpcore.AsyncConnectionPool(network_backend=GuestBackend(steady)) as pool:
        with pytest.raises(httpcore.ReadTimeout):
            await pool.request("GET", "http://sandbox:80/", extensions={"timeout": {"read": 0.05}})


async def test_a_guest_that_stays_silent_is_a_connect_timeout(peer: Peer, steady: Guest) -> None:
    def script(caller: Caller) -> None:
        caller.read_until_gone()

    peer.serve(script)
    async with httpcore.AsyncConnectionPool(network_backend=GuestBackend(steady)) as pool:
        with pytest.raises(httpcore.ConnectTimeout):
            await pool.request("GET", "http://sandbox:80/", extensions={"timeout": {"connect": 0.05}})


async def test_tls_is_not_spoken_inside(peer: Peer, steady: Guest) -> None:
    def script(caller: Caller) -> None:
        caller.read()
        caller.reply(FrameType.FWD_RESP, Status(status="ok"))
        caller.socket.recv(1)

    peer.serve(script)
    async with httpcore.AsyncConnectionPool(network_backend=GuestBackend(steady)) as pool:
        with pytest.raises(httpcore.UnsupportedProtocol):
            await pool.request("GET", "https://sandbox:80/")


async def test_a_stream_tells_when_the_server_has_closed_it(guest: Guest) -> None:
    async def leave(_: asyncio.StreamReader, __: asyncio.StreamWriter) -> None:
        """Close at once."""

    async with listening(leave) as port, asyncio.timeout(60):
        stream = await GuestBackend(guest).connect_tcp("sandbox", port)
        await asyncio.to_thread(wait_until, lambda: bool(stream.get_extra_info("is_readable")), "the close")
        assert stream.get_extra_info("peername") is None
        assert await stream.read(10) == b""
        await stream.aclose()
        with pytest.raises(httpcore.WriteError):
            await stream.write(b"x")
