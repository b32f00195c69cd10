"""Ports of sandboxes for the asynchronous client; the twin of ``ports``."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Protocol, TypeVar

from hearth.api.port_schemas import PortList, PortView, PublicationView
from hearth.sdk import port_calls
from hearth.sdk.call import Call
from hearth.sdk.endpoint import Endpoint
from hearth.sdk.forwarding import Forwarder
from hearth.sdk.ports import OnRefusal

Value = TypeVar("Value")


class AsyncCaller(Protocol):
    """What carries calls out."""

    async def call(self, call: Call[Value]) -> Value: ...


class AsyncPorts:
    """What listens in sandboxes, what is published, and ways to it."""

    def __init__(self, client: AsyncCaller, endpoint: Endpoint) -> None:
        self._client = client
        self._endpoint = endpoint

    async def of(self, ref: str) -> Sequence[PortView]:
        """Give the ports that something in a sandbox listens on; wakes it.

        >>> 3999 in [port.port for port in await client.ports.of("web")]
        False
        """
        return (await self._client.call(port_calls.ports(ref))).items

    async def every(self) -> PortList:
        """Give those of all sandboxes that run; wakes none, and names those that it did not ask.

        >>> 3999 in [port.port for port in (await client.ports.every()).items]
        False
        """
        return await self._client.call(port_calls.all_ports())

    async def publish(self, ref: str, port: int, *, alias: str | None = None) -> PublicationView:
        """Give a port a public URL, which wakes the sandbox from any state.

        >>> (await client.ports.publish("web", 3000, alias="shop")).port
        3000
        >>> await client.ports.unpublish("web", 3000)
        """
        return await self._client.call(port_calls.publish(ref, port, alias))

    async def published(self, ref: str) -> Sequence[PublicationView]:
        """Give a sandbox's public URLs; wakes nothing.

        >>> made = await client.ports.publish("web", 3001)
        >>> [each.port for each in await client.ports.published("web")]
        [3001]
        >>> await client.ports.unpublish("web", 3001)
        """
        return (await self._client.call(port_calls.publications(ref))).items

    async def every_published(self) -> Sequence[PublicationView]:
        """Give all public URLs, everybody's for an administrator; wakes nothing.

        >>> made = await client.ports.publish("web", 3002)
        >>> [each.port for each in await client.ports.every_published()]
        [3002]
        >>> await client.ports.unpublish("web", 3002)
        """
        page = await self._client.call(port_calls.publications_page(None))
        found = [*page.items]
        while page.next_cursor is not None:
            page = await self._client.call(port_calls.publications_page(page.next_cursor))
            found += page.items
        return found

    async def unpublish(self, ref: str, port: int) -> None:
        """Take a port's public URL away.

        >>> made = await client.ports.publish("web", 3003)
        >>> await client.ports.unpublish("web", 3003)
        """
        await self._client.call(port_calls.unpublish(ref, port))

    @contextlib.asynccontextmanager
    async def forward(
        self,
        ref: str,
        remote: int,
        *,
        local: int = 0,
        host: str = "127.0.0.1",
        on_refusal: OnRefusal | None = None,
    ) -> AsyncIterator[tuple[str, int]]:
        """Listen here for connections to a port of a sandbox, as long as the context lasts; gives where.

        Each connection wakes the sandbox if need be. ``local`` 0 lets the system choose a port.

        Raises:
            Unavailable: the address is taken or not ours.

        >>> async with client.ports.forward("web", 3000) as (host, port):
        ...     host, port > 0
        ('127.0.0.1', True)
        """
        port_calls.check_port(remote)
        forwarder = Forwarder(self._endpoint, ref, remote, on_refusal=on_refusal)
        address = await forwarder.start(host, local)
        try:
            yield address
        finally:
            await forwarder.close()
