"""Where the daemon is and with which token to call it: told, from the environment, or in the data directory."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from hearth.config import DataDirectory, default_data_root
from hearth.errors import Forbidden, InvalidInput, Unavailable

UNIX_PREFIX = "unix:"
DEFAULT_PORT = 80


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """A daemon's address, a Unix socket when ``socket_path`` is set, and the caller's token (empty: none)."""

    socket_path: Path | None = None
    host: str = "hearth"
    port: int = DEFAULT_PORT
    token: str = field(default="", repr=False)

    def __str__(self) -> str:
        return f"{UNIX_PREFIX}{self.socket_path}" if self.socket_path else f"http://{self.authority}"

    @property
    def authority(self) -> str:
        """What goes into the Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == DEFAULT_PORT else f"{host}:{self.port}"

    def unreachable(self, error: OSError) -> Unavailable | Forbidden:
        """Say why no connection came about."""
        if isinstance(error, PermissionError):
            return Forbidden(
                "this daemon belongs to another user",
                details=f"{self}: {error.strerror}",
                resolution="call it as the user who runs it, or point HEARTH_URL to an address of yours",
            )
        return Unavailable(
            "the daemon does not answer",
            details=f"{self}: {error.strerror or error}",
            resolution="is it running? start it with 'hearth serve'",
        )


def find_endpoint(
    url: str | None = None, token: str | None = None, *, environment: Mapping[str, str] = os.environ
) -> Endpoint:
    """Give the endpoint: argument, else HEARTH_URL and HEARTH_TOKEN, else socket and admin.key of the data directory.

    Raises:
        InvalidInput: the URL is neither ``http://host:port`` nor ``unix:PATH``.
    """
    url = url or environment.get("HEARTH_URL") or None
    token = token or environment.get("HEARTH_TOKEN") or None
    data = DataDirectory(root=default_data_root(environment, is_root=os.geteuid() == 0))
    if token is None:
        token = _read_key(data.admin_key)
    if url is None:
        return Endpoint(socket_path=data.api_socket, token=token)
    if url.startswith(UNIX_PREFIX):
        return Endpoint(socket_path=Path(url.removeprefix(UNIX_PREFIX).removeprefix("//")), token=token)
    host, port = _host_and_port(url)
    return Endpoint(host=host, port=port, token=token)


def _host_and_port(url: str) -> tuple[str, int]:
    try:
        parts = urlsplit(url)
        port = parts.port or DEFAULT_PORT
    except ValueError:
        parts, port = urlsplit(""), DEFAULT_PORT
    if parts.scheme != "http" or not parts.hostname or parts.path.strip("/") or parts.query or parts.username:
        raise InvalidInput(
            "invalid HEARTH_URL",
            details="it is neither http://host:port nor unix:PATH",
            resolution="write it as http://127.0.0.1:8080 or unix:/path/to/hearth.sock",
            field="HEARTH_URL",
        )
    return parts.hostname, port


def _read_key(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""  # the daemon's answer will say that a token is needed, which is more to the point
