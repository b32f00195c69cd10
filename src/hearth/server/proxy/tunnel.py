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
) -> None:
    """Move bytes until both sides have ended or one is gone; both are closed then.

    Args:
        early: bytes of the sandbox's side that were read already.
        counts: what of the client's, and of the sandbox's bytes is use.
    """
    presence.relax()
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(_to_guest(client, guest, presence, counts[0]), name="tunnel in")
            group.create_task(_to_client(client, guest, presence, counts[1], early), name="tunnel out")
    except* (ClientDisconnect, HearthError):
        pass  # one side is gone: that is how tunnels end
    finally:
        client.close()
        guest.close()


async def _to_guest(client: RawStream, guest: ForwardStream, presence: Presence, counts: Counts) -> None:
    while data := await client.read():
        if counts(data):
            await presence.wake()
        await guest.write(data)
    guest.end_write()


async def _to_client(client: RawStream, guest: ForwardStream, presence: Presence, counts: Counts, early: bytes) -> None:
    data = early or await guest.read(READ_BYTES)
    while data:
        if counts(data):
            presence.moved()
        await client.write(data)
        data = await guest.read(READ_BYTES)
    client.end_write()
