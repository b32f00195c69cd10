"""A stream of events holds nobody up: who takes nothing is cut off, the others go on, over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from starlette.types import Receive, Scope, Send

from hearth.server.app import wrap
from hearth.server.draining import Drain
from hearth.server.listen import unix_listener
from hearth.server.serve import Server
from hearth.server.sse import EventStream, frame

STALLED_S = {"/impatient": 2.0, "/": 60.0}
"""By path: who reads is not to be cut off because the machine stood still, and the loop with it."""
LIMIT_S = 60.0
REQUEST = b"GET / HTTP/1.1\r\nHost: hearth\r\n\r\n"
EVENT = frame("sandbox.changed", b"x" * 50_000, "run.1")
ENOUGH = 200
"""Events that no buffer between the two ends holds."""


class Flood:
    """An application that tells events without end to everybody, each from a source of its own."""

    def __init__(self) -> None:
        self.open = 0
        self.ended = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.open += 1
        await EventStream(self._events(), self._end, stalled_s=STALLED_S[scope["path"]])(scope, receive, send)

    async def _events(self) -> AsyncIterator[bytes]:
        while True:
            yield EVENT
            await asyncio.sleep(0)

    def _end(self) -> None:
        self.open -= 1
        self.ended.set()


@contextlib.asynccontextmanager
async def served(flood: Flood, path: Path) -> AsyncIterator[None]:
    server = Server(wrap(flood), drain=Drain(lambda: None), drain_s=0.1)
    with unix_listener(path) as listener:
        serving = asyncio.create_task(server.serve([listener]))
        try:
            yield
        finally:
            server.should_exit = True
            await serving


@pytest.fixture
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("s") / "s"


async def test_who_takes_nothing_is_cut_off_and_whoever_reads_goes_on(path: Path) -> None:
    flood = Flood()
    async with asyncio.timeout(LIMIT_S), served(flood, path):
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(REQUEST)
        await reader.readuntil(EVENT)
        with socket.socket(socket.AF_UNIX) as slow:
            slow.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(slow, str(path))
            await loop.sock_sendall(slow, REQUEST.replace(b"/", b"/impatient", 1))
            while not flood.ended.is_set():  # the one reads all the while, the other nothing
                await reader.readexactly(len(EVENT))
            assert flood.open == 1
            came = 0
            with contextlib.suppress(ConnectionResetError):
                while data := await loop.sock_recv(slow, 1 << 20):
                    came += len(data)
            assert 0 < came < ENOUGH * len(EVENT)
        for _ in range(ENOUGH):
            await reader.readexactly(len(EVENT))
        writer.close()
        await writer.wait_closed()


async def test_who_leaves_ends_the_stream(path: Path) -> None:
    flood = Flood()
    async with asyncio.timeout(LIMIT_S), served(flood, path):
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(REQUEST)
        await reader.readuntil(EVENT)
        writer.close()
        await flood.ended.wait()
        assert flood.open == 0
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            await writer.wait_closed()
