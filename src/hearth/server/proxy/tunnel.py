"""Bytes between a client and a port of a sandbox, each way with an end of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from starlette.requests import ClientDisconnect

from hearth.control.presence import Presence
from hearth.errors import HearthError
from hearth.guest.forward import ForwardStream
from hearth.server.proxy.frames import PING, PONG, FrameWatch
from hearth.server.proxy.raw import RawStream

READ_BYTES = 262_144
LINGER_S = 300.0
WEBSOCKET_LINGER_S = 10.0
"""A WebSocket says farewell inside the stream: when one side ends, there is nothing left to say."""
Counts = Callable[[bytes], bool]
"""Tells of bytes whether they are use of the sandbox."""


def always(_data: bytes) -> bool:
    """Count all bytes."""
    return True


def websocket_counts() -> tuple[Counts, Counts]:
    """Give what counts of a WebSocket: from the client, and from the sandbox."""
    return FrameWatch(PONG).feed, FrameWatch(PING).feed


async def join(
    client: RawStream,
    guest: ForwardStream,
    presence: Presence,
    *,
    early: bytes = b"",
    counts: tuple[Counts, Counts] = (always, always),
    linger_s: float = LINGER_S,
) -> None:
    """Move bytes until both sides have ended or one is gone; both are closed then.

    Args:
        early: bytes of the sandbox's side that were read already.
        counts: what of the client's, and of the sandbox's bytes is use.
        linger_s: once one side has ended, how long the other may say nothing: it may be gone, too, without a word.
    """
    presence.relax()
    moves = _Moves(client, guest, presence)
    try:
        async with asyncio.TaskGroup() as group:
            ways = {
                group.create_task(moves.to_guest(counts[0]), name="tunnel in"),
                group.create_task(moves.to_client(counts[1], early), name="tunnel out"),
            }
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            lingering = group.create_task(moves.linger(linger_s), name="tunnel end")
            await asyncio.wait(ways)
            lingering.cancel()
    except* (ClientDisconnect, HearthError):
        pass  # one side is gone: that is how tunnels end
    finally:
        client.close()
        guest.close()


class _Moves:
    """Both directions of one join."""

    def __init__(self, client: RawStream, guest: ForwardStream, presence: Presence) -> None:
        self._client = client
        self._guest = guest
        self._presence = presence
        self._loop = asyncio.get_running_loop()
        self._moved_s = self._loop.time()

    async def to_guest(self, counts: Counts) -> None:
        """Carry the client's bytes, then its end."""
        while data := await self._client.read():
            if counts(data):
                await self._presence.wake()
            await self._guest.write(data)
            self._moved_s = self._loop.time()
        self._guest.end_write()

    async def to_client(self, counts: Counts, early: bytes) -> None:
        """Carry the sandbox's bytes, then its end."""
        data = early or await self._guest.read(READ_BYTES)
        while data:
            if counts(data):
                self._presence.moved()
            await self._client.write(data)
            self._moved_s = self._loop.time()
            data = await self._guest.read(READ_BYTES)
        self._client.end_write()

    async def linger(self, linger_s: float) -> None:
        """Wait for the side that is left; raises ClientDisconnect once it has been silent for too long."""
        ended_s = self._loop.time()
        while True:
            left_s = max(self._moved_s, ended_s) + linger_s - self._loop.time()
            if left_s <= 0:
                raise ClientDisconnect
            await asyncio.sleep(left_s)
