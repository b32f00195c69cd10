"""Requests over asyncio streams; the twin of ``transport``."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

from hearth.errors import TimedOut
from hearth.sdk.endpoint import Endpoint
from hearth.sdk.http1 import ConnectionLost, HttpRequest, HttpResponse, ResponseReader, encode_piece, encode_request
from hearth.sdk.transport import CONNECT_S, READ_BYTES

SENDING_S = 86_400.0
"""The daemon has nothing to say as long as a body is on its way."""


@dataclass(frozen=True, kw_only=True)
class Connection:
    """Both directions of a connection."""

    incoming: asyncio.StreamReader
    outgoing: asyncio.StreamWriter

    async def receive(self, reader: ResponseReader, timeout_s: float) -> None:
        """Wait for bytes and feed them."""
        try:
            async with asyncio.timeout(timeout_s):
                data = await self.incoming.read(READ_BYTES)
        except TimeoutError as error:
            raise TimedOut("the daemon took too long to answer", details=f"nothing came for {timeout_s} s") from error
        except OSError as error:
            raise ConnectionLost(answered=reader.head_complete) from error
        reader.feed(data)

    async def drain(self, timeout_s: float) -> None:
        """Wait until the other side takes more.

        Raises:
            TimedOut: it did not for so long.
        """
        try:
            async with asyncio.timeout(timeout_s):
                await self.outgoing.drain()
        except TimeoutError as error:
            raise TimedOut("the daemon takes nothing more", details=f"it took nothing for {timeout_s} s") from error

    async def close(self) -> None:
        self.outgoing.close()
        with contextlib.suppress(OSError):
            await self.outgoing.wait_closed()


class AsyncIncoming:
    """An answer whose head has come; iterate for its body, piece by piece."""

    def __init__(self, connection: Connection, reader: ResponseReader, timeout_s: float) -> None:
        self._connection = connection
        self._timeout_s = timeout_s
        self.reader = reader

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            if data := self.reader.take():
                yield data
            if self.reader.complete:
                return
            await self._connection.receive(self.reader, self._timeout_s)

    def duplex(self) -> AsyncDuplex:
        """Give the bare connection behind an answer that changes the protocol."""
        return AsyncDuplex(self._connection, self.reader.rest)

    async def whole(self) -> HttpResponse:
        """Read the body to its end."""
        body = b"".join([data async for data in self])
        return HttpResponse(status=self.reader.status, headers=self.reader.headers, body=body)


class AsyncDuplex:
    """A connection whose two directions have nothing to do with each other."""

    def __init__(self, connection: Connection, rest: bytes) -> None:
        self._connection = connection
        self._rest = rest

    async def send(self, data: bytes, timeout_s: float) -> None:
        """Send all of it.

        Raises:
            ConnectionLost: the connection is gone, or the other side takes nothing.
        """
        try:
            self._connection.outgoing.write(data)
            await self._connection.drain(timeout_s)
        except (OSError, TimedOut) as error:
            raise ConnectionLost(answered=True) from error

    async def receive(self, timeout_s: float) -> bytes:
        """Wait for bytes; none are the end.

        Raises:
            ConnectionLost: the connection is gone, or nothing came for so long.
        """
        rest, self._rest = self._rest, b""
        try:
            async with asyncio.timeout(timeout_s):
                return rest or await self._connection.incoming.read(READ_BYTES)
        except OSError as error:
            raise ConnectionLost(answered=True) from error

    @property
    def may_send(self) -> bool:
        """Whether a little can be sent without waiting."""
        return self._connection.outgoing.transport.get_write_buffer_size() == 0

    def cut(self) -> None:
        """End both directions: whoever waits learns it at once."""
        self._connection.outgoing.close()


class AsyncTransport:
    """Carries requests to one endpoint, from tasks of one event loop."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self._idle: list[Connection] = []

    async def fetch(self, request: HttpRequest, body: AsyncIterator[bytes] | None = None) -> HttpResponse:
        """Send a request and give its whole answer."""
        async with self.open(request, body) as incoming:
            return await incoming.whole()

    @contextlib.asynccontextmanager
    async def open(
        self, request: HttpRequest, body: AsyncIterator[bytes] | None = None
    ) -> AsyncIterator[AsyncIncoming]:
        """Send a request and give its answer as it comes; leaving early closes the connection.

        Args:
            body: the pieces of a streamed body; they are asked for no more once an answer comes.

        Raises:
            Unavailable: nobody answers, or the connection broke.
            TimedOut: no byte came for ``timeout_s``.
        """
        connection, reader = await self._begin(request, body)
        try:
            yield AsyncIncoming(connection, reader, request.timeout_s)
            if reader.complete and reader.keep_alive:
                self._idle.append(connection)
                return
        except BaseException:
            await connection.close()
            raise
        await connection.close()

    async def close(self) -> None:
        """Close the connections that are not in use."""
        while self._idle:
            await self._idle.pop().close()

    async def _begin(
        self, request: HttpRequest, body: AsyncIterator[bytes] | None
    ) -> tuple[Connection, ResponseReader]:
        if not request.streamed and (kept := await self._kept()):
            try:
                return kept, await self._send(kept, request)
            except ConnectionLost as error:
                if error.answered or not request.may_repeat:
                    raise
        fresh = await self._dial()
        return fresh, await self._send(fresh, request, body)

    async def _send(
        self, connection: Connection, request: HttpRequest, body: AsyncIterator[bytes] | None = None
    ) -> ResponseReader:
        reader = ResponseReader(bodiless=request.method == "HEAD")
        try:
            # A refusal may come before the whole body was taken: then the answer tells why.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                connection.outgoing.write(encode_request(request, self.endpoint))
                await connection.drain(request.timeout_s)
                if body is not None:
                    await _send_body(connection, request, body, reader)
            while not reader.head_complete:
                await connection.receive(reader, request.timeout_s)
        except BaseException:
            await connection.close()
            raise
        return reader

    async def _kept(self) -> Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if not (connection.incoming.at_eof() or connection.outgoing.is_closing()):
                return connection
            await connection.close()
        return None

    async def _dial(self) -> Connection:
        endpoint = self.endpoint
        try:
            async with asyncio.timeout(CONNECT_S):
                if endpoint.socket_path is None:
                    incoming, outgoing = await asyncio.open_connection(
                        endpoint.host, endpoint.port, ssl=endpoint.context
                    )
                else:
                    incoming, outgoing = await asyncio.open_unix_connection(endpoint.socket_path)
        except OSError as error:
            raise endpoint.unreachable(error) from error
        return Connection(incoming=incoming, outgoing=outgoing)


async def _send_body(
    connection: Connection, request: HttpRequest, body: AsyncIterator[bytes], reader: ResponseReader
) -> None:
    answer = asyncio.ensure_future(connection.receive(reader, SENDING_S))
    try:
        async for piece in body:
            if answer.done():
                return  # an answer before the end is a refusal
            if piece:
                connection.outgoing.write(encode_piece(request, piece))
                await connection.drain(request.timeout_s)
        connection.outgoing.write(encode_piece(request, b""))
        await connection.drain(request.timeout_s)
    finally:
        await _settle(answer)


async def _settle(answer: asyncio.Future[None]) -> None:
    """End the wait for an answer, and take what came of it."""
    if not answer.done():
        answer.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await answer
