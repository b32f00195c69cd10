"""The connection to Redis: addresses, answers, and what goes wrong, against a real server and raw bytes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from tests.redis_server import RedisServer, redis_server

from hearth.errors import InvalidInput, Unavailable
from hearth.store.redis import Redis
from hearth.store.redis_address import RedisAddress, read_address

PATIENT_S = 30.0
SECRET = "hush-hush"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://db.example.org", RedisAddress(host="db.example.org")),
        ("redis://db.example.org:7000/3", RedisAddress(host="db.example.org", port=7000, database=3)),
        ("rediss://[::1]:7000", RedisAddress(host="::1", port=7000, is_secure=True)),
        ("redis://:p%40ss@h", RedisAddress(host="h", password="p@ss")),
        ("redis://ada:pass@h/1", RedisAddress(host="h", user="ada", password="pass", database=1)),
        ("unix:///run/redis.sock", RedisAddress(path="/run/redis.sock")),
        ("unix:///run/redis.sock?db=2", RedisAddress(path="/run/redis.sock", database=2)),
    ],
)
def test_a_url_names_the_server(url: str, expected: RedisAddress) -> None:
    assert read_address(url) == expected


@pytest.mark.parametrize(
    "url",
    ["", "db.example.org:6379", "http://h", "redis://", "redis://h:x", "redis://h/first", "unix://", "redis://h/²"],
)
def test_another_url_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        read_address(url.replace("redis://h", f"redis://:{SECRET}@h"))
    assert refused.value.field == "redis_url"
    assert SECRET not in str(refused.value)


def test_a_password_does_not_show() -> None:
    address = read_address(f"redis://ada:{SECRET}@h")
    assert SECRET not in repr(address) + str(address)


@pytest.fixture
async def server() -> AsyncIterator[RedisServer]:
    with redis_server("--requirepass", SECRET) as running:
        yield running


def client_of(url: str, password: str = SECRET, *, timeout_s: float = PATIENT_S) -> Redis:
    return Redis(read_address(url.replace("unix://", f"unix://:{password}@")), timeout_s=timeout_s)


async def test_questions_are_answered_and_those_of_many_do_not_mix(server: RedisServer) -> None:
    redis = client_of(f"{server.url}?db=1")
    try:
        assert await redis.ask("SET", "greeting", "grüß\r\ngott") is True
        assert await redis.ask("GET", "greeting") == "grüß\r\ngott"
        assert await redis.ask("GET", "nothing") is None
        assert await redis.ask("RPUSH", "list", "a", "", "c") == 3
        assert await redis.ask("LRANGE", "list", "0", "-1") == ["a", "", "c"]
        answers = await asyncio.gather(*(redis.ask("ECHO", str(number)) for number in range(100)))
        assert answers == [str(number) for number in range(100)]
        with pytest.raises(Unavailable):
            await redis.ask("INCR", "greeting")
        assert await redis.ask("DBSIZE") == 2
    finally:
        await redis.close()


async def test_a_wrong_password_is_refused_each_time_and_not_told(server: RedisServer) -> None:
    redis = client_of(server.url, "wrong-one")
    for _ in range(2):
        with pytest.raises(Unavailable) as refused:
            await redis.ask("PING")
        assert "wrong-one" not in str(refused.value)
    await redis.close()


async def test_a_server_that_ends_and_comes_back_is_found_again(server: RedisServer) -> None:
    redis = client_of(server.url)
    assert await redis.ask("PING") is True
    server.stop()
    with pytest.raises(Unavailable):
        await redis.ask("PING")
    server.start()
    assert await redis.ask("PING") is True
    await redis.close()


async def test_a_server_that_says_nothing_keeps_nobody_longer_than_the_time_limit(server: RedisServer) -> None:
    server.hold()
    redis = client_of(server.url, timeout_s=0.2)
    asked = [asyncio.create_task(redis.ask("PING")) for _ in range(500)]
    done, late = await asyncio.wait(asked, timeout=PATIENT_S)  # one after the other they would take 100 s
    assert not late
    assert {type(task.exception()) for task in done} == {Unavailable}
    await redis.close()


async def test_a_question_that_is_given_up_leaves_no_answer_to_the_next(server: RedisServer) -> None:
    redis = client_of(server.url)
    assert await redis.ask("PING") is True
    waiting = asyncio.create_task(redis.ask("BLPOP", "never", "0"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert await redis.ask("ECHO", "mine") == "mine"
    await redis.close()
