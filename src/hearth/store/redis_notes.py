"""Notes in Redis. A server that is away costs one short wait now and then, and is found again by itself."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import structlog

from hearth.errors import Unavailable
from hearth.metrics.instruments import REDIS_UP

if TYPE_CHECKING:
    from hearth.store.redis import Redis

log = structlog.get_logger(__name__)

AWAY_S = 5.0
"""A server that did not answer is not asked for so long."""
LOOK_EVERY_S = 10.0
PREFIX = "hearth:note:"


class RedisNotes:
    """``Notes`` of all daemons that are told of one Redis; ``redis`` has the time limit of a question."""

    def __init__(self, redis: Redis, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._redis = redis
        self._clock_s = clock_s
        self._away_until_s: float | None = None

    async def get(self, key: str) -> str | None:
        found = await self._ask("GET", PREFIX + key)
        return found if isinstance(found, str) else None

    async def put(self, key: str, text: str, *, kept_s: float) -> None:
        await self._ask("SET", PREFIX + key, text, "PX", str(max(1, math.ceil(kept_s * 1000))))

    async def forget(self, key: str) -> None:
        await self._ask("DEL", PREFIX + key)

    async def watch(self) -> None:
        """See now and then whether the server is there, until cancelled."""
        while True:
            await self._ask("PING")
            await asyncio.sleep(LOOK_EVERY_S)

    async def _ask(self, *words: str) -> object:
        if self._away_until_s is not None and self._clock_s() < self._away_until_s:
            return None
        try:
            found = await self._redis.ask(*words)
        except Unavailable as error:
            if self._away_until_s is None:
                log.warning("Redis is away: daemons go on without notes of each other", reason=error.details)
            self._away_until_s = self._clock_s() + AWAY_S
            REDIS_UP.labels("notes").set(0)
            return None
        if self._away_until_s is not None:
            self._away_until_s = None
            log.info("Redis is back")
        REDIS_UP.labels("notes").set(1)
        return found
