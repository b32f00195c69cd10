"""The public's own listener: a second server in the daemon's loop, with TLS where certificates were given."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import re
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import structlog
import uvicorn
from starlette.types import ASGIApp

from hearth.control.publishing import PublicAddress
from hearth.errors import HostUnfit, InvalidInput
from hearth.server.listen import parse_address, tcp_listener
from hearth.server.proxy.door import Door

log = structlog.get_logger(__name__)

KEEP_ALIVE_S = 30
MAX_CONNECTIONS = 4_096
_ZONE = re.compile(r"(?=.{1,189}\Z)([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


@dataclass(frozen=True, kw_only=True)
class PublicOptions:
    """What the command line says of the public. ``listen`` is an address and a port."""

    listen: tuple[str, int] | None = None
    zone: str | None = None
    certificate: Path | None = None
    key: Path | None = None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the public's listener."""
    group = parser.add_argument_group("published ports")
    group.add_argument("--public-listen", metavar="ADDR", help="serve published ports to everybody on ADDR (host:port)")
    group.add_argument(
        "--public-zone", metavar="ZONE", help="reach them as ALIAS.ZONE; its DNS has to lead here (default: by path)"
    )
    group.add_argument("--public-cert", metavar="FILE", type=Path, help="certificate chain in PEM: serve TLS")
    group.add_argument("--public-key", metavar="FILE", type=Path, help="its private key in PEM")


def read_options(arguments: argparse.Namespace) -> PublicOptions:
    """Read and check them.

    Raises:
        InvalidInput: one makes no sense, alone or without another.
    """
    listen = arguments.public_listen
    for name in ("zone", "cert", "key"):
        if getattr(arguments, f"public_{name}") is not None and listen is None:
            raise _missing(f"--public-{name}", "--public-listen")
    if (arguments.public_cert is None) != (arguments.public_key is None):
        raise _missing(*(("--public-key", "--public-cert")[:: 1 if arguments.public_cert is None else -1]))
    zone = None if arguments.public_zone is None else arguments.public_zone.lower().strip(".")
    if zone is not None and _ZONE.fullmatch(zone) is None:
        raise InvalidInput(
            "invalid --public-zone",
            details=f"{zone[:80]!r} is no DNS name",
            resolution="write it as example.org",
            field="public-zone",
        )
    address = None if listen is None else parse_address(listen, allow_remote=True)
    return PublicOptions(listen=address, zone=zone, certificate=arguments.public_cert, key=arguments.public_key)


def _missing(given: str, wanted: str) -> InvalidInput:
    return InvalidInput(
        f"{given} needs {wanted}",
        details=f"{wanted} was not said",
        resolution=f"say {wanted}, too, or leave out {given}",
        field=wanted.lstrip("-"),
    )


class PublicServer(uvicorn.Server):
    """uvicorn without ears for signals: it ends when it is told to."""

    def __init__(self, app: ASGIApp, options: PublicOptions) -> None:
        config = uvicorn.Config(
            app,
            http=Door,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=MAX_CONNECTIONS,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=1,
        )
        config.load()
        if options.certificate is not None and options.key is not None:
            config.ssl = tls_context(options.certificate, options.key)
        super().__init__(config)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone."""
        yield


@contextlib.asynccontextmanager
async def serving_public(app: ASGIApp, options: PublicOptions, listener: socket.socket) -> AsyncIterator[None]:
    """Serve the public as long as the context lasts.

    Raises:
        HostUnfit: the certificate or its key cannot be used.
    """
    server = PublicServer(app, options)
    task = asyncio.create_task(server.serve([listener]), name="public server")
    try:
        yield
    finally:
        server.should_exit = True
        await asyncio.gather(task, return_exceptions=True)


@contextlib.contextmanager
def listening(options: PublicOptions) -> Iterator[tuple[socket.socket, PublicAddress]]:
    """Listen for the public and tell what its URLs are. ``options`` must say where.

    Raises:
        Unavailable: the address is taken or not ours.
    """
    if options.listen is None:
        raise ValueError("there is nothing to listen on")
    with tcp_listener(*options.listen) as listener:
        host, port = listener.getsockname()[:2]
        scheme = "https" if options.certificate is not None else "http"
        yield listener, PublicAddress(scheme=scheme, host=host, port=port, zone=options.zone)


def tls_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """Load a certificate: TLS 1.2 or later, HTTP/1.1.

    Raises:
        HostUnfit: they cannot be read, or do not fit each other.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        raise HostUnfit(
            "the certificate cannot be used",
            details=f"{certificate}, {key}: {error.strerror or error}",
            resolution="give a PEM chain and the private key that belongs to it, readable by the daemon",
        ) from error
    return context
