"""`serve`: opens the daemon, listens, serves until told to stop, drains, closes."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import os
import resource
import signal
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from functools import partial

import structlog
import uvicorn
import uvloop
from starlette.types import ASGIApp

from hearth.control.daemon import open_daemon
from hearth.control.rates import Turnstile
from hearth.control.shared_rates import ANSWER_S, SharedRates
from hearth.errors import HearthError
from hearth.server import logs, observability, secure
from hearth.server.app import build_app, observed
from hearth.server.certificates import Certificates
from hearth.server.draining import Drain
from hearth.server.listen import spoken_address, tcp_listener, unix_listener
from hearth.server.notify import notify
from hearth.server.observability import serving_metrics
from hearth.server.options import ServeOptions, read_all
from hearth.server.proxy.door import Door
from hearth.server.proxy.public import Gateway
from hearth.server.proxy.serving import serving_public
from hearth.server.reloading import Reloader
from hearth.settings.loading import Loaded, find_file, load
from hearth.settings.options import declare
from hearth.store.redis_address import RedisAddress, open_redis

log = structlog.get_logger(__name__)

CUT_OFF_S = 1
"""How long uvicorn waits for what is cut off then."""
KEEP_ALIVE_S = 75
GC_THRESHOLD = 20000
"""How many more objects are made than freed before a collection: about as many as one answer of 1000 sandboxes."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `serve` takes: a flag for each setting."""
    declare(parser)


def run(arguments: argparse.Namespace) -> int:
    """Serve until a signal comes.

    Raises:
        HearthError: the daemon could not be opened, or an address not be listened on.
    """
    file, must_exist = find_file(arguments.config, os.environ, is_root=os.geteuid() == 0)
    file = file.absolute()  # a reload reads it again, from another working directory

    def read() -> Loaded:
        return load(arguments, os.environ, file, must_exist=must_exist)

    loaded = read()
    logs.configure(loaded.arguments.log_format, logs.levels_of(loaded.arguments.log_level))
    try:
        options = read_all(loaded.arguments, os.environ)
        raise_descriptor_limit()
        os.chdir("/")  # what we start inherits it: no VMM shall hold, or see, the directory of whoever started us
        with observability.traced(options.observing), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(options, loaded, read))
    except HearthError as error:
        raise loaded.explain(error) from error.__cause__
    return 0


def raise_descriptor_limit() -> None:
    """Let this process have as many descriptors as it may: each running sandbox takes some ten."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


async def serve(options: ServeOptions, loaded: Loaded, read: Callable[[], Loaded]) -> None:
    """Open the daemon of a data directory and serve its API, and the public, until SIGTERM or SIGINT.

    Args:
        loaded: what the options were read from; ``read`` reads it anew when SIGHUP comes.
    """
    data, public, encrypted = options.data, options.public, options.encrypted
    async with open_daemon(data, options.settings) as daemon, contextlib.AsyncExitStack() as undo:
        gateway = Gateway(daemon, public.trust)
        undo.push_async_callback(gateway.close)
        context, certificates = secure.context_of(encrypted), Certificates()
        certificates.keep("tls", context)
        sockets = [undo.enter_context(tcp_listener(*address)) for address in options.addresses]
        scheme = "http" if context is None else "https"
        spoken = [*(spoken_address(each, scheme) for each in sockets), f"unix:{data.api_socket}"]
        spoken += await undo.enter_async_context(
            serving_public(daemon, gateway, data, public, observed, partial(certificates.keep, "public"))
        )
        spoken += await undo.enter_async_context(serving_metrics(daemon, options.observing, observed))
        drain = Drain(daemon.events.close)
        shared = await undo.enter_async_context(_sharing(options.redis))
        turnstile, quotas = Turnstile(options.settings.rates, shared), daemon.quotas.store.quotas
        reloader = Reloader(holds=loaded, read=read, turnstile=turnstile, quotas=quotas, certificates=certificates)
        server = Server(build_app(daemon, gateway, drain, turnstile), drain=drain, drain_s=options.drain_s)
        server.hear_signals(reloader.reload)
        local = undo.enter_context(unix_listener(data.api_socket))  # last: who sees it may send signals
        log.info("listening", addresses=spoken)
        _settle_heap()
        plain, behind_tls = ([*sockets, local], []) if context is None else ([local], sockets)
        await server.serve_sockets(plain, behind_tls, context)
    log.info("stopped")


@contextlib.asynccontextmanager
async def _sharing(address: RedisAddress | None) -> AsyncIterator[SharedRates | None]:
    """Count requests together with the other daemons that are told of this Redis, if one is named."""
    if address is None:
        yield None
        return
    redis = open_redis(address, timeout_s=ANSWER_S)
    try:
        yield SharedRates(redis)
    finally:
        await redis.close()


def _settle_heap() -> None:
    """Have the garbage collector look at what requests make, not at what the daemon is made of.

    What was loaded lives as long as the process: a full collection of it held up one list of 1000 sandboxes in ten for
    35 ms. Younger ones came after every 700 objects, 30 times in such a list.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD)


class Server(uvicorn.Server):
    """uvicorn with our ears for signals in place of its own, so that the first one drains and the second does not."""

    def __init__(self, app: ASGIApp, *, drain: Drain, drain_s: float) -> None:
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
        """Serve on listening sockets until a signal comes."""
        self._behind_tls, self._context = behind_tls, context
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

    def hear_signals(self, reload: Callable[[], None]) -> None:
        """End at SIGTERM or SIGINT, also before we serve; a second one waits for nobody.

        Reload at SIGHUP; where we write to a terminal it says that the terminal has gone, and we with it.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop, number)
        loop.add_signal_handler(signal.SIGHUP, partial(self._stop, signal.SIGHUP) if sys.stderr.isatty() else reload)

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
        """Leave signals alone; ``hear_signals`` set who hears them."""
        yield
