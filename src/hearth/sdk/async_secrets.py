"""Secrets for the asynchronous client: ``client.secrets.put("TOKEN", "…")``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

from hearth.api.secret_schemas import SecretView
from hearth.sdk import secret_calls
from hearth.sdk.call import Call

Value = TypeVar("Value")


class AsyncCaller(Protocol):
    """What carries calls out."""

    async def call(self, call: Call[Value]) -> Value: ...


class AsyncSecrets:
    """The caller's secrets: values go in, and come out in sandboxes only."""

    def __init__(self, client: AsyncCaller) -> None:
        self._client = client

    async def put(self, name: str, value: str | bytes) -> SecretView:
        """Keep a secret, or give one that is there a new value: what starts from now on has that.

        >>> (await client.secrets.put("TOKEN", "not to be seen")).name
        'TOKEN'
        >>> (await client.run("web", ["sh", "-c", "echo ${#TOKEN}"], secrets=[{"name": "TOKEN"}])).stdout
        '14\\n'
        >>> await client.secrets.delete("TOKEN")
        """
        return await self._client.call(secret_calls.put(name, value))

    async def every(self) -> Sequence[SecretView]:
        """Give all, without their values, oldest first.

        >>> kept = await client.secrets.put("PASSWORD", b"bytes are fine, too")
        >>> [secret.name for secret in await client.secrets.every()]
        ['PASSWORD']
        >>> await client.secrets.delete("PASSWORD")
        """
        page = await self._client.call(secret_calls.page(None))
        found = [*page.items]
        while page.next_cursor is not None:
            page = await self._client.call(secret_calls.page(page.next_cursor))
            found += page.items
        return found

    async def delete(self, name: str) -> None:
        """Forget one.

        >>> kept = await client.secrets.put("GONE_SOON", "x")
        >>> await client.secrets.delete("GONE_SOON")
        """
        await self._client.call(secret_calls.delete(name))

    async def rotate_master_key(self) -> int:
        """Make a new master key, for administrators; gives how much was sealed anew.

        >>> await client.secrets.rotate_master_key() >= 0
        True
        """
        return (await self._client.call(secret_calls.rotate_master_key())).resealed
