"""Token buckets that several daemons share, in Redis: whoever asks all of them in turn gets no more than of one.

What each daemon counts by itself holds beside it. Where Redis is away each goes on by its own count, and nobody waits.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import structlog

from hearth.errors import Unavailable
from hearth.rates import SECONDS, PerMinute

if TYPE_CHECKING:
    from hearth.store.redis import Redis

log = structlog.get_logger(__name__)

ANSWER_S = 0.5
"""A request waits so long for Redis at the most."""
AWAY_S = 5.0
"""Redis that did not answer is not asked for so long."""
TAKE = """
local rate, burst = tonumber(ARGV[1]), tonumber(ARGV[2])
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
local kept = redis.call('HMGET', KEYS[1], 'level', 'at')
local level = tonumber(kept[1] or burst)
level = math.min(burst, level + math.max(0, now - tonumber(kept[2] or now)) * rate)
local taken = level >= 1 and 1 or 0
redis.call('HSET', KEYS[1], 'level', string.format('%.9f', level - taken), 'at', string.format('%.6f', now))
redis.call('PEXPIRE', KEYS[1], math.ceil(burst / rate * 1000) + 1000)
return taken
"""
"""Fills a bucket for the time that has passed by the server's clock and takes one of it: 1, or 0 where none is left.
It is forgotten once it would be full."""


class SharedRates:
    """The buckets of all daemons that are told of one Redis."""

    def __init__(self, redis: Redis, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._redis = redis
        self._clock_s = clock_s
        self._away_until_s: float | None = None

    async def take(self, name: str, who: str, bound: PerMinute) -> bool:
        """Take one of the bucket of ``who``; False when none is left, True also when nobody can tell."""
        if self._away_until_s is not None and self._clock_s() < self._away_until_s:
            return True
        key = f"hearth:rate:{name}:{bound.count}:{bound.burst}:{who}"
        try:
            taken = await self._redis.ask("EVAL", TAKE, "1", key, repr(bound.count / SECONDS), str(bound.burst))
        except Unavailable as error:
            if self._away_until_s is None:
                log.warning("rates are not shared: each daemon counts for itself", reason=error.details)
            self._away_until_s = self._clock_s() + AWAY_S
            return True
        if self._away_until_s is not None:
            self._away_until_s = None
            log.info("rates are shared again")
        return taken != 0
