"""The daemon's WebSocket itself, on a real connection: who is alive, what is put together, what is bounded."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from starlette.requests import ClientDisconnect
from uvicorn.protocols.http.flow_control import FlowControl
from websockets.frames import Frame, Opcode
from websockets.protocol import CLIENT, Protocol

from hearth.errors import QuotaExceeded, Unavailable
from hearth.server.proxy.raw import RawStream
from hearth.server.sockets import MAX_OF_USER, MAX_STRANGERS, Crowd
from hearth.server.websocket import BrokenProtocol, WebSocket

WAIT_S = 30.0
PING_S = 0.05


class Listening(asyncio.Protocol):
    """The server's side of one connection, as the door has it."""

    def __init__(self, made: asyncio.Future[WebSocket], lost: asyncio.Event) -> None:
        self.made = made
        self.lost = lost

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.flow = FlowControl(transport)
        self.raw = RawStream(transport, self.flow, can_half_close=True)
        self.made.set_result(WebSocket(self.raw))

    def data_received(self, data: bytes) -> None:
        self.raw.feed(data)

    def eof_received(self) -> bool:
        self.raw.feed(b"")
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self.raw.lost()
        self.lost.set()

    def pause_writing(self) -> None:
        self.flow.pause_writing()

    def resume_writing(self) -> None:
        self.flow.resume_writing()


class Visitor:
    """The client's side: bytes, and a protocol that reads and writes frames."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.protocol = Protocol(CLIENT)
        self.heard = asyncio.Event()
        self.pings = 0

    async def send(self, opcode: Opcode, data: bytes, *, fin: bool = True) -> None:
        self.protocol.send_frame(Frame(opcode, data, fin=fin))
        self.writer.write(b"".join(self.protocol.data_to_send()))
        await self.writer.drain()

    async def answer(self) -> None:
        """Read, and answer pings, for ever."""
        while data := await self.reader.read(65_536):
            self.protocol.receive_data(data)
            self.pings += sum(frame.opcode is Opcode.PING for frame in self.protocol.events_received())  # type: ignore[union-attr]
            self.heard.set()
            self.writer.write(b"".join(self.protocol.data_to_send()))


@contextlib.asynccontextmanager
async def meeting(tmp_path: Path) -> AsyncIterator[tuple[WebSocket, Visitor]]:
    loop = asyncio.get_running_loop()
    made: asyncio.Future[WebSocket] = loop.create_future()
    lost = asyncio.Event()
    server = await loop.create_unix_server(lambda: Listening(made, lost), str(tmp_path / "s"))
    reader, writer = await asyncio.open_unix_connection(str(tmp_path / "s"))
    try:
        async with asyncio.timeout(WAIT_S):
            yield await made, Visitor(reader, writer)
    finally:
        (await made).cut()
        await asyncio.wait_for(lost.wait(), WAIT_S)
        writer.close()
        server.close()
        await server.wait_closed()


async def test_a_peer_that_says_nothing_is_cut(tmp_path: Path) -> None:
    async with meeting(tmp_path) as (socket, visitor):
        with pytest.raises(ClientDisconnect):
            await socket.keep_alive(PING_S)
        with contextlib.suppress(ConnectionResetError):
            while await visitor.reader.read(1024):
                continue


async def test_a_peer_that_answers_stays(tmp_path: Path) -> None:
    async with meeting(tmp_path) as (socket, visitor):
        working = [asyncio.create_task(visitor.answer()), asyncio.create_task(socket.keep_alive(1.5))]
        receiving = asyncio.create_task(socket.receive())
        while visitor.pings < 3:
            visitor.heard.clear()
            await visitor.heard.wait()
        assert not any(task.done() for task in (*working, receiving))
        for task in (*working, receiving):
            task.cancel()
        await asyncio.gather(*working, receiving, return_exceptions=True)


async def test_a_text_in_pieces_is_put_together_and_bytes_are_given_as_they_come(tmp_path: Path) -> None:
    async with meeting(tmp_path) as (socket, visitor):
        await visitor.send(Opcode.TEXT, "gr\u00fc".encode()[:3], fin=False)
        await visitor.send(Opcode.PING, b"between")
        await visitor.send(Opcode.CONT, "\u00fc\u00dfe".encode()[1:], fin=True)
        assert await socket.receive() == "gr\u00fc\u00dfe"
        await visitor.send(Opcode.BINARY, b"one", fin=False)
        assert await socket.receive() == b"one"
        await visitor.send(Opcode.CONT, b"", fin=False)
        await visitor.send(Opcode.CONT, b"two")
        assert await socket.receive() == b"two"
        await visitor.send(Opcode.CLOSE, b"")
        assert await socket.receive() is None
        await socket.close(1000)


async def test_pings_that_are_not_waited_for_hold_up_nobody(tmp_path: Path) -> None:
    async with meeting(tmp_path) as (socket, visitor):

        async def flood() -> None:
            for _ in range(30_000):
                await visitor.send(Opcode.PING, b"x" * 100)
            await visitor.send(Opcode.BINARY, b"behind them")

        async def read_all() -> int:
            count = 0
            while count < 30_000 * 102:
                count += len(await visitor.reader.read(65_536))
            return count

        flooding, reading = asyncio.create_task(flood()), asyncio.create_task(read_all())
        assert await socket.receive() == b"behind them"
        await flooding
        await socket.send_bytes(b"")
        assert await reading >= 30_000 * 102
        closing = asyncio.create_task(socket.close(1000))
        visitor.writer.close()
        await closing


async def test_what_is_no_frame_breaks_the_protocol(tmp_path: Path) -> None:
    async with meeting(tmp_path) as (socket, visitor):
        visitor.writer.write(b"\xff\xff\xff\xff")
        with pytest.raises(BrokenProtocol):
            await socket.receive()
        closing = asyncio.create_task(socket.close(1000))
        assert (await visitor.reader.read(4))[2:4] == (1002).to_bytes(2, "big")
        visitor.writer.close()
        await closing


def test_so_many_sockets_and_no_more() -> None:
    crowd = Crowd()
    with contextlib.ExitStack() as entered:
        for _ in range(MAX_OF_USER):
            entered.enter_context(crowd.member("ada"))
        with pytest.raises(QuotaExceeded):
            entered.enter_context(crowd.member("ada"))
        entered.enter_context(crowd.member("bob"))
        for _ in range(MAX_STRANGERS):
            entered.enter_context(crowd.stranger())
        with pytest.raises(Unavailable):
            entered.enter_context(crowd.stranger())
    with crowd.member("ada"), crowd.stranger():
        pass
