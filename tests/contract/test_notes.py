"""What notes promise, wherever they are kept."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from tests.redis_server import redis_server, redis_url

from hearth.host.clock import ManualClock
from hearth.store.notes import MemoryNotes, Notes
from hearth.store.redis import Redis
from hearth.store.redis_address import read_address
from hearth.store.redis_notes import AWAY_S, PREFIX, RedisNotes

KINDS = ("memory", pytest.param("redis", marks=pytest.mark.slow))
PATIENT_S = 30.0
Pass = Callable[[float], Awaitable[None]]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(params=KINDS)
async def notes(request: pytest.FixtureRequest, clock: ManualClock) -> AsyncIterator[Notes]:
    if request.param == "memory":
        yield MemoryNotes(clock)
        return
    with redis_url() as url:
        redis = Redis(read_address(url), timeout_s=PATIENT_S)
        for key in "ab":
            await redis.ask("DEL", PREFIX + key)
        yield RedisNotes(redis)
        await redis.close()


async def test_a_note_is_there_until_it_is_replaced_or_forgotten(notes: Notes) -> None:
    assert await notes.get("a") is None
    await notes.put("a", "ü \n one", kept_s=600)
    await notes.put("b", "two", kept_s=600)
    assert (await notes.get("a"), await notes.get("b")) == ("ü \n one", "two")
    await notes.put("a", "three", kept_s=600)
    assert await notes.get("a") == "three"
    for _ in range(2):
        await notes.forget("a")
    assert (await notes.get("a"), await notes.get("b")) == (None, "two")


async def test_a_note_grows_old(notes: Notes, clock: ManualClock) -> None:
    await notes.put("a", "one", kept_s=0.001)
    await notes.put("b", "two", kept_s=600)
    clock.advance(0.01)
    deadline_s = time.monotonic() + PATIENT_S
    while await notes.get("a") is not None:
        assert time.monotonic() < deadline_s
    assert await notes.get("b") == "two"


@pytest.mark.slow
async def test_without_redis_there_are_no_notes_until_it_is_back() -> None:
    now_s = 0.0
    with redis_server() as server:
        redis = Redis(read_address(server.url), timeout_s=PATIENT_S)
        notes = RedisNotes(redis, lambda: now_s)
        await notes.put("a", "one", kept_s=600)
        server.stop()
        await notes.put("a", "two", kept_s=600)
        assert await notes.get("a") is None
        server.start()
        assert await notes.get("a") is None, "it is not asked at once"
        now_s += AWAY_S
        await notes.put("a", "three", kept_s=600)
        assert await notes.get("a") == "three"
        await redis.close()


@pytest.mark.slow
async def test_a_redis_that_hangs_is_waited_for_once() -> None:
    with redis_server() as server:
        redis = Redis(read_address(server.url), timeout_s=0.05)
        notes = RedisNotes(redis, lambda: 0.0)
        server.hold()
        for _ in range(1000):
            assert await notes.get("a") is None
        await redis.close()
