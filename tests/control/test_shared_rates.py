"""Requests that several daemons count together in a real Redis; without it each counts for itself."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.redis_server import RedisServer, redis_server

from hearth.control.rates import Turnstile
from hearth.control.shared_rates import AWAY_S, SharedRates
from hearth.errors import RateLimited
from hearth.rates import ApiRates, PerMinute
from hearth.store.redis import Redis
from hearth.store.redis_address import read_address

PATIENT_S = 30.0
RATES = ApiRates(read=PerMinute(count=1, burst=6), use=PerMinute(count=60_000, burst=1), create=None)


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with redis_server() as running:
        yield running


class Daemons:
    """The turnstiles of two daemons on one Redis, with a clock of their own for how long that is away."""

    def __init__(self, server: RedisServer) -> None:
        self.now_s = 1000.0
        self._clients = [Redis(read_address(server.url), timeout_s=PATIENT_S) for _ in range(2)]
        self.turnstiles = [Turnstile(RATES, SharedRates(each, lambda: self.now_s)) for each in self._clients]

    async def passed(self, who: str, times: int) -> int:
        """Ask them in turn, so many times each, and tell how often it was let through."""
        count = 0
        for _ in range(times):
            for turnstile in self.turnstiles:
                try:
                    await turnstile.take("read", who, self.now_s)
                except RateLimited:
                    continue
                count += 1
        return count

    async def close(self) -> None:
        for each in self._clients:
            await each.close()


async def test_who_asks_several_daemons_gets_no_more_than_of_one(server: RedisServer) -> None:
    daemons = Daemons(server)
    assert await daemons.passed("ada", 6) == 6
    assert await daemons.passed("bob", 1) == 2
    await daemons.close()


async def test_buckets_fill_again_by_the_servers_clock(server: RedisServer) -> None:
    redis = Redis(read_address(server.url), timeout_s=PATIENT_S)
    shared, bound = SharedRates(redis), PerMinute(count=60_000, burst=1)
    taken = [await shared.take("use", "ada", bound) for _ in range(2000)]
    assert taken[0] and taken.count(True) > 1, "a thousand a second come back"
    left_ms = await redis.ask("PTTL", "hearth:rate:use:60000:1:ada")
    assert isinstance(left_ms, int) and left_ms != -1, "it is not kept for ever, and may be gone already"
    slow = PerMinute(count=1, burst=2)
    assert [await shared.take("read", "ada", slow) for _ in range(3)] == [True, True, False]
    await redis.close()


async def test_without_redis_each_counts_for_itself_until_it_is_back(server: RedisServer) -> None:
    daemons = Daemons(server)
    server.stop()
    assert await daemons.passed("ada", 10) == 12
    server.start()
    assert await daemons.passed("bob", 3) == 6, "it is not asked again so soon"
    daemons.now_s += AWAY_S + 1
    assert await daemons.passed("eve", 6) == 6
    await daemons.close()


async def test_a_server_that_refuses_is_as_good_as_away() -> None:
    with redis_server("--requirepass", "of-others") as server:
        daemons = Daemons(server)
        assert await daemons.passed("ada", 10) == 12
        await daemons.close()
