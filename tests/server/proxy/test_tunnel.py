"""A joined connection and the sandbox's rest: which bytes hold it, which wake it, and how the join ends."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.control.conftest import House, data, house, opened
from tests.guest.servers import listening
from uvicorn.protocols.http.flow_control import FlowControl

from hearth.control.presence import Presence
from hearth.model import SandboxSpec
from hearth.server.proxy.raw import RawStream
from hearth.server.proxy.tunnel import join, websocket_counts

__all__ = ["data", "house", "opened"]
QUIET_S = 0.2
LINGER_S = 1.2
WAIT_S = 60
PING, PONG, TEXT = b"\x89\x00", b"\x8a\x00", b"\x81\x02hi"


class Client(asyncio.Protocol):
    """The daemon's end of a client's connection, as the door feeds it."""

    def __init__(self) -> None:
        self.raw: asyncio.Future[RawStream] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.raw.set_result(RawStream(transport, FlowControl(transport), can_half_close=True))

    def data_received(self, data: bytes) -> None:
        self.raw.result().feed(data)

    def eof_received(self) -> bool:
        self.raw.result().feed(b"")
        return True

    def connection_lost(self, _: Exception | None) -> None:
        self.raw.result().lost()


@dataclass
class Stage:
    """A WebSocket under way: both ends as streams, and the presence between."""

    client: tuple[asyncio.StreamReader, asyncio.StreamWriter]
    server: tuple[asyncio.StreamReader, asyncio.StreamWriter]
    presence: Presence
    joined: asyncio.Task[None]

    async def let_go(self) -> None:
        async with asyncio.timeout(WAIT_S):
            while self.presence.holds:
                await asyncio.sleep(0.005)


@pytest.fixture
def quiet_s() -> float:
    """After so long without a byte the sandbox is let go."""
    return QUIET_S


@pytest.fixture
async def stage(house: House, tmp_path: Path, quiet_s: float) -> AsyncIterator[Stage]:
    sandbox = (await house.sandboxes.create(house.admin, SandboxSpec(name="web"))).sandbox
    came: asyncio.Future[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.get_running_loop().create_future()
    over = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        came.set_result((reader, writer))
        await over.wait()

    made: list[Client] = []

    def make() -> Client:
        made.append(Client())
        return made[-1]

    path = tmp_path / "client"
    listener = await asyncio.get_running_loop().create_unix_server(make, path)
    async with listening(serve) as port, house.sandboxes.awake(house.admin, sandbox.id) as guest:
        reader, writer = await asyncio.open_unix_connection(path)
        while not made:
            await asyncio.sleep(0)
        presence = Presence(house.sandboxes, sandbox, guest, quiet_s=quiet_s)
        stream = await guest.forward(port)
        work = join(await made[0].raw, stream, presence, counts=websocket_counts(), linger_s=LINGER_S)
        joined = asyncio.create_task(work, name="join")
        try:
            yield Stage((reader, writer), await came, presence, joined)
        finally:
            over.set()
            joined.cancel()
            await asyncio.gather(joined, return_exceptions=True)
            presence.end()
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
    listener.close()
    await listener.wait_closed()


async def test_an_open_tab_that_only_answers_pings_does_not_hold_the_sandbox(stage: Stage) -> None:
    (client_in, client_out), (server_in, server_out) = stage.client, stage.server
    for _ in range(8):
        server_out.write(PING)
        assert await client_in.readexactly(2) == PING
        client_out.write(PONG)
        assert await server_in.readexactly(2) == PONG
        await asyncio.sleep(QUIET_S / 4)
    await stage.let_go()
    server_out.write(PING)
    assert await client_in.readexactly(2) == PING
    assert not stage.presence.holds


@pytest.mark.parametrize("quiet_s", [WAIT_S])
@pytest.mark.parametrize("said", [TEXT, PING], ids=["text", "a ping of the client's own"])
async def test_what_a_client_says_holds_it_again(stage: Stage, said: bytes) -> None:
    stage.presence.end()
    assert not stage.presence.holds
    stage.client[1].write(said)
    assert await stage.server[0].readexactly(len(said)) == said
    assert stage.presence.holds


@pytest.mark.parametrize("quiet_s", [WAIT_S])
async def test_what_the_sandbox_says_holds_it_again(stage: Stage) -> None:
    stage.presence.end()
    assert not stage.presence.holds
    stage.server[1].write(TEXT)
    assert await stage.client[0].readexactly(len(TEXT)) == TEXT
    assert stage.presence.holds


async def test_a_machine_that_goes_ends_the_join(stage: Stage, house: House) -> None:
    stage.presence.guest.disconnect()
    async with asyncio.timeout(WAIT_S):
        await stage.joined
        assert await stage.client[0].read() == b""


async def test_a_client_that_goes_without_a_word_ends_the_join(stage: Stage) -> None:
    stage.client[1].transport.abort()
    async with asyncio.timeout(WAIT_S):
        assert await stage.server[0].read() == b""
        await stage.joined


async def test_who_still_has_something_to_say_may_take_its_time(stage: Stage) -> None:
    loop = asyncio.get_running_loop()
    silent_since_s = loop.time()
    stage.client[1].write_eof()
    assert await stage.server[0].read() == b""
    for _ in range(5):
        await asyncio.sleep(LINGER_S / 4)
        said_s = loop.time()
        stage.server[1].write(TEXT)
        try:
            assert await stage.client[0].readexactly(len(TEXT)) == TEXT
        except asyncio.IncompleteReadError:
            assert loop.time() - silent_since_s > LINGER_S, "it was cut off a moment after it had said something"
            break
        silent_since_s = said_s
    async with asyncio.timeout(WAIT_S):
        await stage.joined
        assert await stage.client[0].read() == b""
