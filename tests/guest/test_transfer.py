from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from tests.guest.peer import Caller, Peer

from hearth.errors import GuestFailed, NoSpace
from hearth.guest.client import Guest
from hearth.guest.transfer import BODY_CHUNK, chunks
from hearth.wire import frames
from hearth.wire.frames import FrameType
from hearth.wire.messages import Status

OK = Status(status="ok")


async def test_a_refusal_in_the_middle_of_a_body_is_told_though_the_connection_breaks(
    peer: Peer, steady: Guest
) -> None:
    def script(caller: Caller) -> None:
        caller.read()
        caller.read()
        caller.send(frames.encode_error("no space: /f: No space left on device"))

    peer.serve(script)
    for _ in range(10):
        with pytest.raises(NoSpace, match="No space left on device"):
            await steady.files.write("/f", bytes(20_000_000))


async def test_a_guest_that_leaves_in_the_middle_of_a_body_has_failed(peer: Peer, steady: Guest) -> None:
    def script(caller: Caller) -> None:
        caller.read()
        caller.read()

    peer.serve(script)
    with pytest.raises(GuestFailed):
        await steady.files.write("/f", bytes(20_000_000))


async def test_a_slow_source_is_waited_for_and_its_end_is_told(peer: Peer, steady: Guest) -> None:
    received: list[frames.Frame] = []
    arrived = asyncio.Event()
    loop = asyncio.get_running_loop()

    def script(caller: Caller) -> None:
        received.append(caller.read())
        while received[-1].type != FrameType.STDIN_EOF:
            received.append(caller.read())
            loop.call_soon_threadsafe(arrived.set)
        caller.reply(FrameType.TAR_WRITE_RESP, OK)

    async def source() -> AsyncIterator[bytes]:
        yield b"one"
        await arrived.wait()
        yield b"two"

    peer.serve(script)
    await steady.files.write_tar("/d", source())
    assert received[1:] == [(FrameType.STDIN, b"one"), (FrameType.STDIN, b"two"), (FrameType.STDIN_EOF, b"")]


async def test_cancelling_an_upload_ends_its_connection(peer: Peer, steady: Guest) -> None:
    left: list[frames.Frame] = []
    begun = asyncio.Event()
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()

    def script(caller: Caller) -> None:
        caller.read()
        caller.read()
        loop.call_soon_threadsafe(begun.set)
        left.extend(caller.read_until_gone())
        loop.call_soon_threadsafe(ended.set)

    async def endless() -> AsyncIterator[bytes]:
        yield b"one"
        await asyncio.Event().wait()

    peer.serve(script)
    upload = asyncio.create_task(steady.files.write("/f", endless(), size=100))
    async with asyncio.timeout(60):
        await begun.wait()
        upload.cancel()
        with pytest.raises(asyncio.CancelledError):
            await upload
        await ended.wait()
    assert left == []


@pytest.mark.parametrize("size", [0, 1, BODY_CHUNK, BODY_CHUNK + 1])
async def test_bytes_are_cut_into_pieces_that_make_them_whole_again(size: int) -> None:
    pieces = [piece async for piece in chunks(bytes(size))]
    assert b"".join(pieces) == bytes(size)
    assert all(0 < len(piece) <= BODY_CHUNK for piece in pieces)
