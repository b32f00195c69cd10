"""`serve`: opens the daemon, listens, serves until told to stop, drains, closes."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import resource
import signal
import socket
import ssl
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import structlog
import uvicorn
import uvloop
from starlette.types import ASGIApp

from hearth.config import DataDirectory, Settings, load_data_directory
from hearth.control.daemon import open_daemon
from hearth.server import limits, logs, observability, secure
from hearth.server.app import build_app, observed
from hearth.server.draining import Drain
from hearth.server.listen import parse_address, spoken_address, tcp_listener, unix_listener
from hearth.server.notify import notify
from hearth.server.observability import ObservabilityOptions, serving_metrics
from hearth.server.proxy.door import Door
from hearth.server.proxy.options import PublicOptions, read_options
from hearth.server.proxy.options import add_arguments as add_public_arguments
from hearth.server.proxy.public import Gateway
from hearth.server.proxy.serving import serving_public

log = structlog.get_logger(__name__)

DRAIN_S = 10
"""How long running requests may take to end once the daemon was told to stop; then they are told that it stops."""
CUT_OFF_S = 1
"""How long uvicorn waits for what is cut off then."""
KEEP_ALIVE_S = 75
MAX_POOL = 64
"""Most machines of one shape that an operator may keep ready."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `serve` takes."""
    parser.add_argument("--data", metavar="DIR", type=Path, help="data directory (default: HEARTH_DATA)")
    parser.add_argument("--listen", metavar="ADDR", action="append", default=[], help="also serve on ADDR (host:port)")
    parser.add_argument("--allow-remote", action="store_true", help="let --listen take addresses that are not loopback")
    parser.add_argument(
        "--engine", choices=("qemu", "local"), default="qemu", help="what runs sandboxes (local: unsafe)"
    )
    parser.add_argument(
        "--idle-pause",
        metavar="SECONDS",
        type=seconds,
        help="pause sandboxes after so long without use (default: 30)",
    )
    parser.add_argument(
        "--idle-stop",
        metavar="SECONDS",
        type=seconds,
        help=f"bring sandboxes to disk after so long without use (default: {Settings.idle_stop_s:g})",
    )
    parser.add_argument(
        "--pool",
        metavar="N",
        type=count,
        help=f"keep N machines ready of each shape asked for lately (default: {Settings.pool_ready})",
    )
    add_network_arguments(parser)
    parser.add_argument(
        "--stop-on-exit", action="store_true", help="at the end bring sandboxes to disk instead of leaving them running"
    )
    parser.add_argument(
        "--drain", metavar="SECONDS", type=int, default=DRAIN_S, help="wait so long for requests at the end"
    )
    add_public_arguments(parser)
    limits.add_arguments(parser)
    secure.add_arguments(parser)
    observability.add_arguments(parser)
    logs.add_arguments(parser)


def add_network_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `serve` takes about sandboxes' networks."""
    parser.add_argument(
        "--net",
        choices=("auto", "full", "user"),
        help="networks by this host's kernel (full), in user mode without root's rights, or what there is (default)",
    )
    parser.add_argument(
        "--net-default",
        choices=("deny", "public"),
        help=f"what sandboxes reach of the world unless told otherwise (default: {Settings.net_default})",
    )
    parser.add_argument(
        "--uplink",
        metavar="WHERE",
        help=f"their way to the world: host, none, or netns:NAME (default: {Settings.uplink})",
    )
    parser.add_argument(
        "--dns", metavar="SERVER", action="append", help="ask this server for names of the world; repeatable"
    )
    parser.add_argument(
        "--net-slots",
        metavar="N",
        type=count,
        help=f"keep the networks of N machines made ahead (default: {Settings.network_slots})",
    )


def run(arguments: argparse.Namespace) -> int:
    """Serve until a signal comes.

    Raises:
        HearthError: the daemon could not be opened, or an address not be listened on.
    """
    logs.configure(arguments.log_format, logs.levels_of(arguments.log_level))
    data = DataDirectory(root=arguments.data.absolute()) if arguments.data else load_data_directory()
    data.check()
    raise_descriptor_limit()
    encrypted, settings = secure.read_options(arguments), settings_of(arguments)
    os.chdir("/")  # what we start inherits it: no VMM shall hold, or see, the directory of whoever started us
    remote = arguments.allow_remote or encrypted.is_on
    addresses = [parse_address(text, allow_remote=remote) for text in arguments.listen]
    public, observing = read_options(arguments), observability.read_options(arguments)
    with observability.traced(observing), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        serving = serve(data, settings, addresses, public, encrypted, observing, drain_s=arguments.drain)
        runner.run(serving)
    return 0


def raise_descriptor_limit() -> None:
    """Let this process have as many descriptors as it may: each running sandbox takes some ten."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def settings_of(arguments: argparse.Namespace) -> Settings:
    """Give the settings that were asked for; the others keep their defaults."""
    settings = Settings(engine=arguments.engine, stop_on_exit=arguments.stop_on_exit)
    chosen = {
        "idle_pause_s": arguments.idle_pause,
        "idle_stop_s": arguments.idle_stop,
        "pool_ready": arguments.pool,
        "net": arguments.net,
        "net_default": arguments.net_default,
        "uplink": arguments.uplink,
        "dns_servers": None if arguments.dns is None else tuple(arguments.dns),
        "network_slots": arguments.net_slots,
        "rates": limits.rates_of(arguments),
        "quotas": limits.quotas_of(arguments),
        "audit_days": arguments.audit_days,
        "master_key": arguments.master_key and arguments.master_key.absolute(),
    }
    return replace(settings, **{name: value for name, value in chosen.items() if value is not None})


async def serve(
    data: DataDirectory,
    settings: Settings,
    addresses: list[tuple[str, int]],
    public: PublicOptions,
    encrypted: secure.SecureOptions,
    observing: ObservabilityOptions,
    *,
    drain_s: int,
) -> None:
    """Open the daemon of a data directory and serve its API, and the public, until SIGTERM or SIGINT."""
    async with open_daemon(data, settings) as daemon, contextlib.AsyncExitStack() as undo:
        gateway = Gateway(daemon, public.trust)
        undo.push_async_callback(gateway.close)
        context = secure.context_of(encrypted)
        sockets = [undo.enter_context(tcp_listener(*address)) for address in addresses]
        scheme = "http" if context is None else "https"
        spoken = [*(spoken_address(each, scheme) for each in sockets), f"unix:{data.api_socket}"]
        spoken += await undo.enter_async_context(serving_public(daemon, gateway, data, public, observed))
        spoken += await undo.enter_async_context(serving_metrics(daemon, observing, observed))
        local = undo.enter_context(unix_listener(data.api_socket))
        drain = Drain(daemon.events.close)
        log.info("listening", addresses=spoken)
        plain, behind_tls = ([*sockets, local], []) if context is None else ([local], sockets)
        server = Server(build_app(daemon, gateway, drain), drain=drain, drain_s=drain_s)
        await server.serve_sockets(plain, behind_tls, context)
    log.info("stopped")


class Server(uvicorn.Server):
    """uvicorn with our ears for signals in place of its own, so that the first one drains and the second does not."""

    def __init__(self, app: ASGIApp, *, drain: Drain, drain_s: int) -> None:
        self._drain = drain
        self._drain_s = drain_s
        self._draining: asyncio.Task[None] | None = None
        self._behind_tls: Sequence[socket.socket] = ()
        self._context: ssl.SSLContext | None = None
        super().__init__(
            uvicorn.Config(
                app,
                http=Door,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=KEEP_ALIVE_S,
                timeout_graceful_shutdown=CUT_OFF_S,
            )
        )

    async def serve_sockets(
        self,
        sockets: list[socket.socket],
        behind_tls: Sequence[socket.socket] = (),
        context: ssl.SSLContext | None = None,
    ) -> None:
        """Serve on listening sockets until SIGTERM or SIGINT; a second one waits for nobody."""
        self._behind_tls, self._context = behind_tls, context
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop, number)
        await self.serve(sockets)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and tell the service manager that requests are taken from now on."""
        await super().startup(sockets)
        for listener in self._behind_tls:
            server = await asyncio.get_running_loop().create_server(
                self._door, sock=listener, ssl=self._context, ssl_handshake_timeout=secure.HANDSHAKE_S
            )
            self.servers.append(server)
        notify("READY=1")

    def _door(self) -> Door:
        """Make a connection as uvicorn makes those of its own listeners."""
        return Door(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)

    def _stop(self, number: signal.Signals) -> None:
        log.info("stopping", signal=number.name)
        notify("STOPPING=1")
        if self._draining is None:
            self._draining = asyncio.create_task(self._end(), name="drain")
        else:
            self.force_exit = self.should_exit = True

    async def _end(self) -> None:
        """Stop once what is under way has ended, or time is up."""
        await self._drain.run(self._drain_s)
        self.should_exit = True

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone; ``serve_sockets`` hears them."""
        yield


def seconds(text: str) -> float:
    """Read a positive number of seconds; argparse tells what a ValueError means."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
    return value


def count(text: str) -> int:
    """Read a number of machines; argparse tells what a ValueError means."""
    value = int(text)
    if not 0 <= value <= MAX_POOL:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to {MAX_POOL}")
    return value
