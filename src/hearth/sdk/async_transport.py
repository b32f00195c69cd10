"""Requests over asyncio streams; the twin of ``transport``."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

from hearth.errors import TimedOut
from hearth.sdk.endpoint import Endpoint
from hearth.sdk.http1 import ConnectionLost, HttpRequest, HttpResponse, ResponseReader, encode_request
from hearth.sdk.transport import CONNECT_S, READ_BYTES


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

    async def whole(self) -> HttpResponse:
        """Read the body to its end."""
        body = b"".join([data async for data in self])
        return HttpResponse(status=self.reader.status, headers=self.reader.headers, body=body)


class AsyncTransport:
    """Carries requests to one endpoint, from tasks of one event loop."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self._idle: list[Connection] = []

    async def fetch(self, request: HttpRequest) -> HttpResponse:
        """Send a request and give its whole answer."""
        async with self.open(request) as incoming:
            return await incoming.whole()

    @contextlib.asynccontextmanager
    async def open(self, request: HttpRequest) -> AsyncIterator[AsyncIncoming]:
        """Send a request and give its answer as it comes; leaving early closes the connection.

        Raises:
            Unavailable: nobody answers, or the connection broke.
            TimedOut: no byte came for ``timeout_s``.
        """
        connection, reader = await self._begin(request)
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

    async def _begin(self, request: HttpRequest) -> tuple[Connection, ResponseReader]:
        if kept := await self._kept():
            try:
                return kept, await self._send(kept, request)
            except ConnectionLost as error:
                if error.answered or not request.may_repeat:
                    raise
        fresh = await self._dial()
        return fresh, await self._send(fresh, request)

    async def _send(self, connection: Connection, request: HttpRequest) -> ResponseReader:
        reader = ResponseReader()
        try:
            # A refusal may come before the whole body was taken: then the answer tells why.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                connection.outgoing.write(encode_request(request, self.endpoint))
                await connection.outgoing.drain()
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
