"""The end of serving: what is under way may end, what comes anew is told to come back, while patience lasts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog
from starlette.types import ASGIApp, Receive, Scope, Send

from hearth.errors import Unavailable

log = structlog.get_logger(__name__)

STILL_ANSWERED = frozenset({"/health", "/healthz", "/livez", "/readyz", "/metrics"})
RETRY_AFTER_S = 5.0
"""About what a restart takes."""


class Stopping(Unavailable):
    """The daemon takes no more requests; after ``retry_after_s`` another may."""

    def __init__(self) -> None:
        self.retry_after_s = RETRY_AFTER_S
        super().__init__(
            "the daemon is stopping",
            details="it lets requests under way end and takes no more",
            resolution="try again in a moment",
        )


class Drain:
    """Counts requests, and knows whether more are taken.

    Args:
        begin: ends what would never end by itself.
    """

    def __init__(self, begin: Callable[[], None]) -> None:
        self.is_on = False
        self._begin = [begin]
        self._count = 0
        self._changed = asyncio.Event()

    def over(self, app: ASGIApp) -> ASGIApp:
        """Put this around an application."""

        async def counted(scope: Scope, receive: Receive, send: Send) -> None:
            if self.is_on and scope["path"] not in STILL_ANSWERED:
                raise Stopping
            self._count += 1
            try:
                await app(scope, receive, send)
            finally:
                self._count -= 1
                self._changed.set()

        return counted

    def also(self, begin: Callable[[], None]) -> None:
        """Have something else end that would never end by itself."""
        self._begin.append(begin)

    async def run(self, patience_s: float) -> None:
        """Take no more requests, and wait until those under way have ended, or patience has."""
        self.is_on = True
        for begin in self._begin:
            begin()
        log.info("draining", requests=self._count, patience_s=patience_s)
        try:
            async with asyncio.timeout(patience_s):
                while self._count:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            log.warning("requests are cut off", requests=self._count)
