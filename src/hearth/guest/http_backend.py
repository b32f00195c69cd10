"""httpcore over a guest's ports: an HTTP client whose connections come out inside the sandbox."""

# ruff: noqa: ARG002 -- the signatures are httpcore's

from __future__ import annotations

import ssl
from collections.abc import Iterable
from typing import Any

import httpcore

from hearth.errors import HearthError, TimedOut
from hearth.guest.client import Guest
from hearth.guest.faults import Deadline
from hearth.guest.forward import ForwardStream

CONNECT_TIMEOUT_S = 10.0
"""How long a connection takes at most when the client names no time of its own."""


class GuestStream(httpcore.AsyncNetworkStream):
    """A forward as httpcore's stream."""

    def __init__(self, stream: ForwardStream) -> None:
        self._stream = stream

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        try:
            async with Deadline(timeout, "reading from the sandbox"):
                return await self._stream.read(max_bytes)
        except TimedOut as error:
            raise httpcore.ReadTimeout(str(error)) from error
        except HearthError as error:
            raise httpcore.ReadError(str(error)) from error

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        if not buffer:
            return
        try:
            async with Deadline(timeout, "writing to the sandbox"):
                await self._stream.write(buffer)
        except TimedOut as error:
            raise httpcore.WriteTimeout(str(error)) from error
        except HearthError as error:
            raise httpcore.WriteError(str(error)) from error

    async def aclose(self) -> None:
        self._stream.close()

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.AsyncNetworkStream:
        self._stream.close()  # httpcore leaves a stream whose handshake failed to itself
        raise httpcore.UnsupportedProtocol("TLS ends at the host; inside the sandbox only plain HTTP is spoken")

    def get_extra_info(self, info: str) -> Any:
        """Tell ``is_readable``, by which a pool drops idle connections that the server has closed; nothing else."""
        return self._stream.is_readable() if info == "is_readable" else None


class GuestBackend(httpcore.AsyncNetworkBackend):
    """Connects to ports of one guest, whatever the host name of a URL says.

    Give it to ``httpcore.AsyncConnectionPool(network_backend=...)``.
    """

    def __init__(self, guest: Guest) -> None:
        self._guest = guest

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        try:
            return GuestStream(await self._guest.forward(port, timeout_s=timeout or CONNECT_TIMEOUT_S))
        except TimedOut as error:
            raise httpcore.ConnectTimeout(str(error)) from error
        except HearthError as error:
            raise httpcore.ConnectError(str(error)) from error
