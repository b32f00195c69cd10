"""Bodies: file contents and archives on their way out of the guest and into it, never held whole."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator
from typing import Self

from hearth.errors import GuestFailed, InvalidInput, TooLarge
from hearth.guest.connection import Connection
from hearth.guest.connector import Connector
from hearth.guest.faults import Deadline, decode_reply
from hearth.guest.status import check_ok, expect_ok
from hearth.wire import frames
from hearth.wire.frames import Frame, FrameType
from hearth.wire.messages import FileReadResponse

BODY_CHUNK = 65_536
"""Bytes of a body in one frame."""


class Download:
    """A body coming out of the guest: iterate for its pieces. Use it as ``async with``; entering sends the request.

    A body that does not end properly raises, so that half of it never passes for the whole.
    """

    def __init__(self, connector: Connector, request: bytes, reply: FrameType) -> None:
        self._connector = connector
        self._request = request
        self._reply = reply
        self._connection: Connection | None = None
        self._done = False

    async def __aenter__(self) -> Self:
        async with Deadline(self._connector.patience.reply_s, "opening what is to be read"):
            connection = await self._connector.open(self._request)
            try:
                self._take_reply(await connection.expect(self._reply))
            except BaseException:
                connection.close()
                raise
        self._connection = connection
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._connection is not None:
            self._connection.close()

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        """Wait for the next piece.

        Raises:
            TimedOut: nothing came for a while.
            GuestFailed: the guest broke off, failed on the way or broke the protocol.
            HearthError: it could not go on reading, see ``hearth.guest.faults``.
        """
        if self._connection is None:
            raise RuntimeError("use the download as 'async with'")
        if self._done:
            raise StopAsyncIteration
        async with Deadline(self._connector.patience.stall_s, "the next piece"):
            frame = await self._connection.expect(FrameType.STDOUT, FrameType.EXIT)
        if frame.type == FrameType.STDOUT:
            return frame.payload
        self._done = True
        if frame.payload != _EXIT_OK:
            raise GuestFailed("the guest did not read to the end")
        raise StopAsyncIteration

    async def collect(self, max_bytes: int) -> bytes:
        """Take the whole body.

        Raises:
            TooLarge: it has more than ``max_bytes`` bytes.
            HearthError: as for the iteration.
        """
        pieces, size = [], 0
        async for piece in self:
            size += len(piece)
            if size > max_bytes:
                raise TooLarge("the content is too large", details=f"more than {max_bytes} bytes")
            pieces.append(piece)
        return b"".join(pieces)

    def _take_reply(self, frame: Frame) -> None:
        check_ok(frame.payload)


class FileDownload(Download):
    """A file's content. ``size`` is the whole file's in bytes (0 for procfs), ``mode`` 4 octal digits."""

    size: int
    mode: str

    def _take_reply(self, frame: Frame) -> None:
        reply = decode_reply(FileReadResponse, frame.payload)
        if reply.size < 0:
            raise GuestFailed("the guest broke the protocol", details=f"a file of {reply.size} bytes")
        self.size, self.mode = reply.size, reply.mode


async def upload(
    connection: Connection, body: AsyncIterable[bytes], reply: FrameType, *, stall_s: float, size: int | None = None
) -> None:
    """Send a body in STDIN frames and wait for the status ``ok``; a refusal ends the sending at once.

    A body of known ``size`` (in bytes) ends by it, any other by STDIN_EOF.

    Raises:
        InvalidInput: the body has another size; leave the connection then, and the guest drops what it has.
        TimedOut: the guest stood still.
        GuestFailed: it broke off or broke the protocol.
        HearthError: it refused, see ``hearth.guest.faults``.
    """
    answer = asyncio.create_task(expect_ok(connection, reply), name="guest reply")
    sender = asyncio.create_task(_send_body(connection, body, size, stall_s), name="guest body")
    try:
        await asyncio.wait((answer, sender), return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            error = sender.exception()
            if error is not None and not isinstance(error, GuestFailed):
                raise error  # the body itself failed; a broken connection is the answer's to explain
            async with Deadline(stall_s, "the reply to what was sent"):
                await answer
        answer.result()
    finally:
        answer.cancel()
        sender.cancel()
        await asyncio.gather(answer, sender, return_exceptions=True)


async def chunks(data: bytes) -> AsyncIterator[bytes]:
    """Give bytes as a body."""
    for start in range(0, len(data), BODY_CHUNK):
        yield data[start : start + BODY_CHUNK]


async def _send_body(connection: Connection, body: AsyncIterable[bytes], size: int | None, stall_s: float) -> None:
    sent = 0
    async for piece in body:
        sent += len(piece)
        if size is not None and sent > size:
            raise _wrong_size(size, "more")
        view = memoryview(piece)
        for start in range(0, len(view), BODY_CHUNK):
            async with Deadline(stall_s, "the guest taking the next piece"):
                await connection.send(frames.encode(FrameType.STDIN, view[start : start + BODY_CHUNK]))
    if size is None:
        await connection.send(frames.encode(FrameType.STDIN_EOF))
    elif sent < size:
        raise _wrong_size(size, f"only {sent}")


def _wrong_size(size: int, came: str) -> InvalidInput:
    return InvalidInput("the content is not of the size told", details=f"{size} bytes were told, {came} came")


_EXIT_OK = b"\0\0\0\0"
