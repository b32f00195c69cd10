"""Where the daemon is and with which token to call it: told, from the environment, or in the data directory."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from hearth.errors import Forbidden, InvalidInput, Unavailable
from hearth.place import DataDirectory, default_data_root
from hearth.sdk.client_file import client_file, read_client_file

if TYPE_CHECKING:
    import ssl

UNIX_PREFIX = "unix:"
DEFAULT_PORT = 80
DEFAULT_TLS_PORT = 443
LOOPBACK = ("127.0.0.1", "::1", "localhost")


NO_TLS = frozenset({"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG", "RECORD_LAYER_FAILURE"})
"""What OpenSSL calls an answer that is none of TLS."""


@dataclass(frozen=True, kw_only=True)
class Tls:
    """How to make sure of the daemon: by the authorities in ``ca``, else the system's; and of us, by a certificate."""

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None

    def context(self) -> ssl.SSLContext:
        """Load it all.

        Raises:
            InvalidInput: a file cannot be used; ``field`` names the variable.
        """
        module = import_module("ssl")  # 10 ms, which only those who need it wait for
        try:
            made: ssl.SSLContext = module.create_default_context(cafile=self.ca)
        except OSError as error:
            raise _unusable("HEARTH_CA_FILE", self.ca, error) from error
        if self.certificate is not None:
            try:
                made.load_cert_chain(self.certificate, self.key)
            except OSError as error:
                raise _unusable("HEARTH_CERT_FILE", self.certificate, error) from error
        return made


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """A daemon's address, a Unix socket when ``socket_path`` is set, and the caller's token (empty: none).

    ``tls`` is set where it is reached by https.
    """

    socket_path: Path | None = None
    host: str = "hearth"
    port: int = DEFAULT_PORT
    token: str = field(default="", repr=False)
    tls: Tls | None = None

    def __str__(self) -> str:
        scheme = "http" if self.tls is None else "https"
        return f"{UNIX_PREFIX}{self.socket_path}" if self.socket_path else f"{scheme}://{self.authority}"

    @cached_property
    def context(self) -> ssl.SSLContext | None:
        """What connections are made secure with; None where they are not."""
        return None if self.tls is None else self.tls.context()

    @property
    def authority(self) -> str:
        """What goes into the Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        usual = DEFAULT_PORT if self.tls is None else DEFAULT_TLS_PORT
        return host if self.port == usual else f"{host}:{self.port}"

    def unreachable(self, error: OSError) -> Unavailable | Forbidden:
        """Say why no connection came about."""
        if isinstance(error, PermissionError):
            return Forbidden(
                "this daemon belongs to another user",
                details=f"{self}: {error.strerror}",
                resolution="call it as the user who runs it, or point HEARTH_URL to an address of yours",
            )
        reason = getattr(error, "reason", None)
        if reason in NO_TLS:
            return Unavailable(
                "no TLS is spoken there",
                details=f"{self}: {reason.lower().replace('_', ' ')}",
                resolution=f"write HEARTH_URL as http://{self.authority}, or have the daemon serve TLS (--tls-cert)",
            )
        return Unavailable(
            "the daemon does not answer",
            details=f"{self}: {error.strerror or error}",
            resolution="is it running? start it with 'hearth serve'",
        )


def find_endpoint(
    url: str | None = None, token: str | None = None, *, environment: Mapping[str, str] = os.environ
) -> Endpoint:
    """Give the endpoint: argument, else the environment, else the client's file, else the data directory.

    The environment says HEARTH_URL, with HEARTH_TOKEN or HEARTH_TOKEN_FILE, or HEARTH_DATA for the daemon of that
    directory. What the file says of a token goes to the file's URL alone.

    Raises:
        InvalidInput: the URL is neither ``http://host:port``, ``https://host:port`` nor ``unix:PATH``, or a file that
            was named cannot be used.
    """
    url = url or environment.get("HEARTH_URL") or None
    stored = {} if url or environment.get("HEARTH_DATA") else read_client_file(client_file(environment))
    url = url or stored.get("url")
    token = token or environment.get("HEARTH_TOKEN") or _token_in(environment, stored)
    data = DataDirectory(root=default_data_root(environment, is_root=os.geteuid() == 0))
    if url is None:
        return Endpoint(socket_path=data.api_socket, token=_read_key(data.admin_key) if token is None else token)
    if url.startswith(UNIX_PREFIX):
        path = Path(url.removeprefix(UNIX_PREFIX).removeprefix("//"))
        return Endpoint(socket_path=path, token=_read_key(data.admin_key) if token is None else token)
    is_secure, host, port = _address(url)
    if token is None:
        # The key of the daemon on this host is no other host's business.
        token = _read_key(data.admin_key) if host in LOOPBACK and not is_secure else ""
    return Endpoint(host=host, port=port, token=token, tls=_tls(environment, stored) if is_secure else None)


def _token_in(environment: Mapping[str, str], stored: Mapping[str, str]) -> str | None:
    """Give the token of HEARTH_TOKEN_FILE, else the client's file's own, else of the file that one names."""
    named = environment.get("HEARTH_TOKEN_FILE") or None
    if named is None and "token" in stored:
        return stored["token"]
    path = named or stored.get("token_file")
    if path is None:
        return None
    try:
        return Path(path).expanduser().read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(
            "the token's file cannot be read",
            details=f"{path}: {error.strerror if isinstance(error, OSError) else 'it is no text'}",
            resolution="name a readable file with nothing but the token",
            field="HEARTH_TOKEN_FILE" if named else "token_file",
        ) from error


def _tls(environment: Mapping[str, str], stored: Mapping[str, str]) -> Tls:
    ca, certificate, key = (
        environment.get(f"HEARTH_{name}_FILE") or stored.get(f"{name.lower()}_file") for name in ("CA", "CERT", "KEY")
    )
    return Tls(
        ca=None if ca is None else Path(ca).expanduser(),
        certificate=None if certificate is None else Path(certificate).expanduser(),
        key=None if key is None else Path(key).expanduser(),
    )


def _address(url: str) -> tuple[bool, str, int]:
    """Take a URL apart: whether it is secure, host and port."""
    try:
        parts = urlsplit(url)
        port = parts.port or (DEFAULT_TLS_PORT if parts.scheme == "https" else DEFAULT_PORT)
    except ValueError:
        parts, port = urlsplit(""), DEFAULT_PORT
    if (
        parts.scheme not in ("http", "https")
        or not parts.hostname
        or parts.path.strip("/")
        or parts.query
        or parts.username
    ):
        raise InvalidInput(
            "invalid HEARTH_URL",
            details="it is neither http://host:port, https://host:port nor unix:PATH",
            resolution="write it as https://hearth.example:8443, http://127.0.0.1:8080 or unix:/path/to/hearth.sock",
            field="HEARTH_URL",
        )
    return parts.scheme == "https", parts.hostname, port


def _unusable(variable: str, path: Path | None, error: OSError) -> InvalidInput:
    return InvalidInput(
        f"invalid {variable}",
        details=f"{path}: {error.strerror or error}",
        resolution="name a readable file in PEM",
        field=variable,
    )


def _read_key(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""  # the daemon's answer will say that a token is needed, which is more to the point
