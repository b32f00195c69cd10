"""Who is at the other end of a connection: an address, or the host itself by the Unix socket."""

from __future__ import annotations

from starlette.types import Scope


def address_of(scope: Scope) -> str | None:
    """Give the IP address of the client; None when it came by the Unix socket, which is its own user's alone."""
    client = scope.get("client")
    return client[0] if client and client[0] else None
