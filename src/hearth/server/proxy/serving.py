"""The public's own listeners: servers of their own in the daemon's loop, with TLS where there are certificates."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp

from hearth.config import DataDirectory
from hearth.control.background import Background
from hearth.control.daemon import Daemon
from hearth.control.publishing import PublicAddress
from hearth.errors import HostUnfit
from hearth.host.clock import SystemClock
from hearth.server.listen import spoken_address, tcp_listener
from hearth.server.proxy.acme.doorstep import Doorstep
from hearth.server.proxy.acme.files import CertificateFiles
from hearth.server.proxy.acme.keeper import ALPN, Keeper
from hearth.server.proxy.crowd import AddressDoor, Visitors
from hearth.server.proxy.options import PublicOptions
from hearth.server.proxy.public import Gateway

KEEP_ALIVE_S = 30
MAX_CONNECTIONS = 4_096
SILENT_S, PROBE_EVERY_S, PROBES = 60, 15, 4
"""A peer that is gone without a word (an idle WebSocket may say nothing for hours) is noticed after two minutes."""
Observe = Callable[[ASGIApp], ASGIApp]


class PublicServer(uvicorn.Server):
    """uvicorn without ears for signals: it ends when it is told to."""

    def __init__(self, app: ASGIApp, options: PublicOptions, context: ssl.SSLContext | None) -> None:
        config = uvicorn.Config(
            app,
            http=partial(AddressDoor, Visitors(options.trust)),  # type: ignore[arg-type]  # a class is only called
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
        config.ssl = context
        super().__init__(config)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone."""
        yield


@contextlib.asynccontextmanager
async def serving_public(
    daemon: Daemon,
    gateway: Gateway,
    data: DataDirectory,
    options: PublicOptions,
    observe: Observe,
    keep: Callable[[ssl.SSLContext], None],
) -> AsyncIterator[list[str]]:
    """Serve the public as long as the context lasts; gives the addresses it is served on. Nothing where nobody asked.

    Args:
        observe: puts around an app what every request of this daemon goes through.
        keep: is given the context of a certificate that was named, for its renewal.

    Raises:
        Unavailable: an address is taken or not ours.
        HostUnfit: the certificate or its key cannot be used.
    """
    if options.listen is None:
        yield []
        return
    async with contextlib.AsyncExitStack() as undo:
        listener = undo.enter_context(listener_on(options.listen))
        scheme, host, port = options.seen_as or (options.scheme, *listener.getsockname()[:2])
        address = PublicAddress(scheme=scheme, host=host, port=port, zone=options.zone)
        daemon.publishing.address = address
        files = CertificateFiles(data.root / "certificates")
        context: ssl.SSLContext | None = None
        if options.acme is not None and options.zone is not None:
            keeper = Keeper(
                options.acme,
                zone=options.zone,
                files=files,
                aliases=daemon.publishing.aliases,
                clock=SystemClock(),
            )
            await asyncio.to_thread(keeper.load)
            daemon.publishing.certificates = keeper
            background = Background()
            undo.push_async_callback(background.end)
            context = choosing_context(keeper.context_for)
            background.start("certificates", keeper.run())
        elif options.certificate is not None and options.key is not None:
            context = tls_context(options.certificate, options.key)
            keep(context)
        app = observe(gateway.gate(options.zone))
        await undo.enter_async_context(_served(PublicServer(app, options, context), listener))
        spoken = [f"{spoken_address(listener)} (public)"]
        if options.http is not None:
            doorstep = observe(Doorstep(address, files.challenges if options.acme is not None else None))
            plain = undo.enter_context(listener_on(options.http))
            await undo.enter_async_context(_served(PublicServer(doorstep, options, None), plain))
            spoken.append(f"{spoken_address(plain)} (to https)")
        yield spoken


@contextlib.asynccontextmanager
async def _served(server: PublicServer, listener: socket.socket) -> AsyncIterator[None]:
    task = asyncio.create_task(server.serve([listener]), name="public server")
    try:
        yield
    finally:
        server.should_exit = True
        await asyncio.gather(task, return_exceptions=True)


@contextlib.contextmanager
def listener_on(address: tuple[str, int]) -> Iterator[socket.socket]:
    """Listen for the public. Raises Unavailable where the address is taken or not ours."""
    with tcp_listener(*address) as listener:
        # Connections take these after their listener.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, SILENT_S)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, PROBE_EVERY_S)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, PROBES)
        yield listener


def tls_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """Load a certificate: TLS 1.2 or later, HTTP/1.1.

    Raises:
        HostUnfit: they cannot be read, or do not fit each other.
    """
    context = _bare_context()
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        raise HostUnfit(
            "the certificate cannot be used",
            details=f"{certificate}, {key}: {error.strerror or error}",
            resolution="give a PEM chain and the private key that belongs to it, readable by the daemon",
        ) from error
    return context


def choosing_context(context_for: Callable[[str], ssl.SSLContext | None]) -> ssl.SSLContext:
    """Give a TLS context that takes the certificate of the name a client asks for; without one it says so and ends."""

    def choose(connection: ssl.SSLObject | ssl.SSLSocket, name: str | None, _context: ssl.SSLContext) -> int | None:
        chosen = None if name is None else context_for(name)
        if chosen is None:
            return ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME
        connection.context = chosen
        return None

    context = _bare_context()
    context.sni_callback = choose
    return context


def _bare_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(ALPN)
    return context
