# Made of async_secrets.py by 'make twins': change that.
"""Secrets for the blocking client: ``client.secrets.put("TOKEN", "…")``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

from hearth.api.secret_schemas import SecretView
from hearth.sdk import secret_calls
from hearth.sdk.call import Call

Value = TypeVar("Value")


class Caller(Protocol):
    """What carries calls out."""

    def call(self, call: Call[Value]) -> Value: ...


class Secrets:
    """The caller's secrets: values go in, and come out in sandboxes only."""

    def __init__(self, client: Caller) -> None:
        self._client = client

    def put(self, name: str, value: str | bytes) -> SecretView:
        """Keep a secret, or give one that is there a new value: what starts from now on has that.

        >>> client.secrets.put("TOKEN", "not to be seen").name
        'TOKEN'
        >>> client.run("web", ["sh", "-c", "echo ${#TOKEN}"], secrets=[{"name": "TOKEN"}]).stdout
        '14\\n'
        >>> client.secrets.delete("TOKEN")
        """
        return self._client.call(secret_calls.put(name, value))

    def every(self) -> Sequence[SecretView]:
        """Give all, without their values, oldest first.

        >>> kept = client.secrets.put("PASSWORD", b"bytes are fine, too")
        >>> [secret.name for secret in client.secrets.every()]
        ['PASSWORD']
        >>> client.secrets.delete("PASSWORD")
        """
        page = self._client.call(secret_calls.page(None))
        found = [*page.items]
        while page.next_cursor is not None:
            page = self._client.call(secret_calls.page(page.next_cursor))
            found += page.items
        return found

    def delete(self, name: str) -> None:
        """Forget one.

        >>> kept = client.secrets.put("GONE_SOON", "x")
        >>> client.secrets.delete("GONE_SOON")
        """
        self._client.call(secret_calls.delete(name))

    def rotate_master_key(self) -> int:
        """Make a new master key, for administrators; gives how much was sealed anew.

        >>> client.secrets.rotate_master_key() >= 0
        True
        """
        return self._client.call(secret_calls.rotate_master_key()).resealed
