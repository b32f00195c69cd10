"""Questions to a Redis server, each within a time limit. What is kept there is nobody's only copy."""

from __future__ import annotations

import asyncio
from typing import Any

from redis.asyncio import BlockingConnectionPool, SSLConnection, UnixDomainSocketConnection
from redis.asyncio import Connection as PlainConnection
from redis.asyncio import Redis as Client
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from hearth.errors import Unavailable
from hearth.store.redis_address import RedisAddress

MAX_CONNECTIONS = 8
"""More questions at a time wait for one of them."""
RESP2 = 2
"""Every server speaks it."""


class Redis:
    """A client; its connections come with questions, and anew after anything that went wrong."""

    def __init__(self, address: RedisAddress, *, timeout_s: float) -> None:
        self.address = address
        self._timeout_s = timeout_s
        self._client = Client(connection_pool=_pool(address, timeout_s))

    async def ask(self, *words: str) -> object:
        """Send a command and give its answer as the library reads it, within the time limit, all waiting included.

        Raises:
            Unavailable: the server is not there, too slow, or refuses it.
        """
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._client.execute_command(*words)  # type: ignore[no-untyped-call]
        except (RedisError, OSError) as error:
            reason = str(error)[:200] or f"no answer within {self._timeout_s:g} s"
            raise Unavailable(
                "Redis is of no use", details=f"{self.address}: {reason}", resolution="see to the server"
            ) from error

    async def close(self) -> None:
        """End the connections."""
        await self._client.aclose(close_connection_pool=True)


def _pool(address: RedisAddress, timeout_s: float) -> BlockingConnectionPool:
    where: dict[str, Any] = {"connection_class": UnixDomainSocketConnection, "path": address.path}
    if address.path is None:
        kind = SSLConnection if address.is_secure else PlainConnection
        where = {"connection_class": kind, "host": address.host, "port": address.port}
    return BlockingConnectionPool(
        max_connections=MAX_CONNECTIONS,
        timeout=timeout_s,
        db=address.database,
        username=address.user or None,
        password=address.password or None,
        decode_responses=True,
        encoding_errors="replace",
        protocol=RESP2,
        retry=Retry(NoBackoff(), 0),
        socket_timeout=None,  # the library's own swallows cancellation under Python 3.11; ``ask`` has its limit
        **where,
    )
