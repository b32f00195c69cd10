"""Another try for what failed by chance, after a pause that is never twice the same."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog

from hearth.host.clock import Clock
from hearth.image.golden.base import SourceUnreachable
from hearth.image.golden.settings import RetrySettings
from hearth.metrics import instruments

log = structlog.get_logger(__name__)

T = TypeVar("T")


class Patience:
    """Counts failures in a row; any success makes it new."""

    def __init__(self, settings: RetrySettings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._failures = 0

    def succeeded(self) -> None:
        """Forget the failures."""
        self._failures = 0

    async def failed(self, error: SourceUnreachable) -> None:
        """Wait before another try.

        Raises:
            SourceUnreachable: the one given; there were enough tries.
        """
        self._failures += 1
        if self._failures >= self._settings.attempts:
            raise error
        pauses_ms = self._settings.backoff_ms or (0,)
        pause_s = pauses_ms[min(self._failures, len(pauses_ms)) - 1] / 1000
        pause_s = max(pause_s * random.uniform(0.5, 1.0), error.retry_after_s or 0.0)  # noqa: S311 - no secret
        log.info("image source failed, trying again", why=str(error), attempt=self._failures, pause_s=round(pause_s, 3))
        instruments.IMAGE_RETRIES.inc()
        await self._clock.sleep(pause_s)


async def retried(work: Callable[[], Awaitable[T]], settings: RetrySettings, clock: Clock) -> T:
    """Give what ``work`` gives, trying again after ``SourceUnreachable``."""
    patience = Patience(settings, clock)
    while True:
        try:
            return await work()
        except SourceUnreachable as error:
            await patience.failed(error)
