"""Where a Redis server is. What talks to it is loaded only where one is named: a tenth of the daemon's start."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from hearth.errors import InvalidInput

if TYPE_CHECKING:
    from hearth.store.redis import Redis

PORT = 6379
FIELD = "redis_url"


@dataclass(frozen=True, kw_only=True)
class RedisAddress:
    """Where the server is, who we are there, and which of its databases is meant. ``path`` is a Unix socket's."""

    host: str = "127.0.0.1"
    port: int = PORT
    path: str | None = None
    is_secure: bool = False
    user: str = ""
    password: str = field(default="", repr=False)
    database: int = 0

    def __str__(self) -> str:
        return self.path or f"{self.host}:{self.port}"


def read_address(url: str) -> RedisAddress:
    """Read ``redis://[USER:PASSWORD@]HOST[:PORT][/DATABASE]``, ``rediss://`` for TLS, or ``unix:///PATH[?db=N]``.

    Raises:
        InvalidInput: it is none of these; what it says is not repeated, as it may hold a password.
    """
    try:
        parts = urlsplit(url)
        user, password = unquote(parts.username or ""), unquote(parts.password or "")
        if parts.scheme == "unix" and parts.path:
            database = _read_database(parts.query.removeprefix("db="))
            return RedisAddress(path=unquote(parts.path), user=user, password=password, database=database)
        if parts.scheme in ("redis", "rediss") and parts.hostname:
            return RedisAddress(
                host=parts.hostname,
                port=parts.port or PORT,
                is_secure=parts.scheme == "rediss",
                user=user,
                password=password,
                database=_read_database(parts.path.removeprefix("/")),
            )
    except ValueError:
        pass
    raise InvalidInput(
        "invalid URL of Redis",
        details=f"{FIELD} is of another form",
        resolution="write it as redis://:PASSWORD@HOST:PORT/0, rediss://… for TLS, or unix:///path/to/socket",
        field=FIELD,
    )


def _read_database(text: str) -> int:
    if text and not (text.isascii() and text.isdecimal()):
        raise ValueError(text)
    return int(text or 0)


def open_redis(address: RedisAddress, *, timeout_s: float) -> Redis:
    """Give a client, which connects with its first question; each takes ``timeout_s`` at the most."""
    client: Redis = import_module("hearth.store.redis").Redis(address, timeout_s=timeout_s)
    return client
