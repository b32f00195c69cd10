"""A local port whose connections come out at a port of a sandbox, through the API.

A tunnel is one HTTP request that changes its protocol: ``Upgrade: hearth-tunnel``. What follows are raw bytes, and each
direction ends on its own.
"""

from __future__ import annotations

import asyncio
import contextlib
from urllib.parse import quote

from hearth.api.port_operations import TUNNEL_PATH, TUNNEL_PROTOCOL
from hearth.errors import HearthError, Unavailable
from hearth.sdk.call import read_problem
from hearth.sdk.endpoint import Endpoint
from hearth.sdk.http1 import HttpResponse, ResponseReader
from hearth.sdk.ports import OnRefusal
from hearth.sdk.transport import CONNECT_S
from hearth.version import VERSION

READ_BYTES = 262_144
MAX_HEAD_BYTES = 65_536
OPEN_S = 600.0
"""How long a tunnel may take to open: the sandbox may have to be woken, on a busy host."""
SWITCHED = b"HTTP/1.1 101 "
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Forwarder:
    """Listens, and carries any number of connections."""

    def __init__(self, endpoint: Endpoint, ref: str, port: int, *, on_refusal: OnRefusal | None = None) -> None:
        self._endpoint = endpoint
        self._target = TUNNEL_PATH.replace("{ref}", quote(ref, safe="")).replace("{port}", str(port))
        self._on_refusal = on_refusal
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def start(self, host: str, port: int) -> tuple[str, int]:
        """Begin to listen and tell where; port 0 lets the system choose.

        Raises:
            Unavailable: the address is taken or not ours.
        """
        try:
            self._server = await asyncio.start_server(self._accept, host, port)
        except OSError as error:
            raise Unavailable(
                "cannot listen",
                details=f"{host}:{port}: {error.strerror or error}",
                resolution="choose another local port or address",
            ) from error
        bound: tuple[str, int] = self._server.sockets[0].getsockname()[:2]
        return bound

    async def close(self) -> None:
        """Stop listening and end every connection."""
        if self._server is not None:
            self._server.close()
        for connection in tuple(self._connections):
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        if self._server is not None:
            await self._server.wait_closed()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = asyncio.create_task(self._carry((reader, writer)), name="forwarded connection")
        self._connections.add(connection)
        connection.add_done_callback(self._connections.discard)

    async def _carry(self, local: Streams) -> None:
        try:
            remote = await open_tunnel(self._endpoint, self._target)
        except HearthError as error:
            if self._on_refusal is not None:
                self._on_refusal(error)
            local[1].transport.abort()
            return
        except BaseException:
            local[1].transport.abort()
            raise
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(_pump(local[0], remote[1]), name="forward out")
                group.create_task(_pump(remote[0], local[1]), name="forward in")
        except* OSError:
            pass  # one side is gone, and with it the connection
        finally:
            for _, writer in (local, remote):
                writer.close()
            for _, writer in (local, remote):
                with contextlib.suppress(OSError):
                    await writer.wait_closed()


async def open_tunnel(endpoint: Endpoint, target: str) -> Streams:
    """Open a tunnel.

    Raises:
        HearthError: the daemon refuses: there is no such sandbox, nothing listens there, it cannot be woken.
        Unavailable: the daemon cannot be reached.
    """
    try:
        async with asyncio.timeout(CONNECT_S):
            if endpoint.socket_path is None:
                reader, writer = await asyncio.open_connection(
                    endpoint.host, endpoint.port, ssl=endpoint.context, limit=READ_BYTES
                )
            else:
                reader, writer = await asyncio.open_unix_connection(endpoint.socket_path, limit=READ_BYTES)
    except OSError as error:
        raise endpoint.unreachable(error) from error
    try:
        writer.write(_request(endpoint, target))
        async with asyncio.timeout(OPEN_S):
            head = await reader.readuntil(b"\r\n\r\n")
            if not head.startswith(SWITCHED):
                raise read_problem(await _answer(head, reader))
    except (OSError, EOFError, asyncio.LimitOverrunError) as error:
        writer.close()
        raise Unavailable("the daemon broke off", details=str(error), resolution="see the daemon's log") from error
    except BaseException:
        writer.close()
        raise
    return reader, writer


async def _answer(head: bytes, reader: asyncio.StreamReader) -> HttpResponse:
    answer = ResponseReader()
    answer.feed(head)
    body = b""
    while not answer.complete:
        answer.feed(await reader.read(READ_BYTES))
    body += answer.take()
    return HttpResponse(status=answer.status, headers=answer.headers, body=body)


async def _pump(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    while data := await source.read(READ_BYTES):
        target.write(data)
        await target.drain()
    target.write_eof()


def _request(endpoint: Endpoint, target: str) -> bytes:
    lines = [
        f"GET {target} HTTP/1.1",
        f"Host: {endpoint.authority}",
        f"User-Agent: hearth/{VERSION}",
        "Connection: Upgrade",
        f"Upgrade: {TUNNEL_PROTOCOL}",
    ]
    if endpoint.token:
        lines.append(f"Authorization: Bearer {endpoint.token}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1", "replace")
