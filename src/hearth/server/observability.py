"""What an operator may say about metrics and traces, and what comes of it: a listener for scrapers, a tracer."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from urllib.parse import urlsplit

import structlog
import uvicorn
from starlette.types import ASGIApp

from hearth.control.daemon import Daemon
from hearth.errors import HostUnfit, InvalidInput
from hearth.metrics import tracing
from hearth.server.exposition import Exposition
from hearth.server.listen import parse_address, spoken_address, tcp_listener
from hearth.server.routes.metrics import MetricsOnly

log = structlog.get_logger(__name__)

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
DISABLED = "OTEL_SDK_DISABLED"
SCRAPERS_MAX = 16
"""Connections at a time; each scrape costs some ms."""
Observe = Callable[[ASGIApp], ASGIApp]


@dataclass(frozen=True, kw_only=True)
class ObservabilityOptions:
    """Where metrics are served besides the API, and where spans go.

    Args:
        otel: whether spans go anywhere; ``otel_endpoint`` None leaves it to the environment to say where.
    """

    listen: tuple[str, int] | None = None
    otel: bool = False
    otel_endpoint: str | None = None


def read_options(arguments: argparse.Namespace, environment: Mapping[str, str] = os.environ) -> ObservabilityOptions:
    """Read what was said; the OTEL_* variables of the standard hold where nothing was.

    Raises:
        InvalidInput: names the option.
    """
    listen = None
    if arguments.metrics_listen is not None:
        listen = parse_address(arguments.metrics_listen, allow_remote=arguments.allow_remote)
    said: str | None = arguments.otel_endpoint
    if said is not None and (urlsplit(said).scheme not in ("http", "https") or not urlsplit(said).hostname):
        raise InvalidInput(
            "invalid --otel-endpoint",
            details=f"{said[:80]!r} is no http or https URL",
            resolution="write it as http://127.0.0.1:4318",
            field="otel-endpoint",
        )
    is_off = environment.get(DISABLED, "").lower() == "true"
    named = said is not None or any(environment.get(name) for name in ENDPOINTS)
    return ObservabilityOptions(listen=listen, otel=named and not is_off, otel_endpoint=said)


@contextlib.contextmanager
def traced(options: ObservabilityOptions) -> Iterator[None]:
    """Send spans where the options say, as long as the context lasts. Nothing is loaded where they say nothing.

    Raises:
        HostUnfit: what sends them is not installed.
    """
    if not options.otel:
        yield
        return
    try:
        module = import_module("hearth.metrics.otel")
    except ModuleNotFoundError as error:
        raise HostUnfit(
            "traces cannot be sent",
            details=f"{error.name} is not installed",
            resolution="install hearth with its extra: pip install 'hearth[otel]'",
        ) from error
    tracer: tracing.Tracer = module.OtelTracer(options.otel_endpoint)
    tracing.use(tracer)
    log.info("traces are sent")
    try:
        yield
    finally:
        tracing.use(None)
        tracer.close()


@contextlib.asynccontextmanager
async def serving_metrics(daemon: Daemon, options: ObservabilityOptions, observe: Observe) -> AsyncIterator[list[str]]:
    """Serve /metrics on a listener of its own as long as the context lasts; gives where. Nothing where nobody asked.

    Args:
        observe: puts around an app what every request of this daemon goes through.

    Raises:
        Unavailable: the address is taken or not ours.
    """
    if options.listen is None:
        yield []
        return
    with tcp_listener(*options.listen) as listener:
        server = ScrapeServer(observe(MetricsOnly(Exposition(daemon))))
        task = asyncio.create_task(server.serve([listener]), name="metrics server")
        try:
            yield [f"{spoken_address(listener)}/metrics"]
        finally:
            server.should_exit = True
            await asyncio.gather(task, return_exceptions=True)


class ScrapeServer(uvicorn.Server):
    """uvicorn without ears for signals: it ends when it is told to."""

    def __init__(self, app: ASGIApp) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http="httptools",
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                limit_concurrency=SCRAPERS_MAX,
                timeout_graceful_shutdown=1,
            )
        )

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone."""
        yield
