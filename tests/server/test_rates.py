"""How often the API may be asked over the network, and how slowly; the host's own socket is not counted."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from starlette.types import Message, Receive, Scope, Send
from tests.redis_server import redis_server
from tests.server.daemon import RunningDaemon, data_directory, publish_images, running_daemon
from tests.server.network import address_of, ask_over_tcp, bearer

from hearth.api.problems import status_of
from hearth.control.rates import Turnstile
from hearth.errors import RateLimited, RequestTimeout
from hearth.rates import ApiRates, PerMinute
from hearth.server.middleware.body_limit import BodyLimit

PATH = "/api/v1/volumes"
AT_ONCE = 3
WAIT_S = 60.0
PATIENCE = 10
SHARED = "rates are shared again"


@dataclass(frozen=True, kw_only=True)
class Limited:
    """A daemon with narrow bounds, and users of it."""

    daemon: RunningDaemon
    address: tuple[str, int]
    tokens: tuple[str, ...]

    def ask(
        self, method: str, path: str, token: str, body: bytes | None = None
    ) -> tuple[int, dict[str, str], dict[str, str]]:
        return ask_over_tcp(self.address, method, path, body, headers=bearer(token))


@pytest.fixture(scope="module")
def limited() -> Iterator[Limited]:
    words = [f"--rate={name}=1/{AT_ONCE}" for name in ("create", "use", "read", "failures")]
    with data_directory() as data:
        publish_images(data)
        with running_daemon(data, "--listen", "127.0.0.1:0", *words) as daemon:
            with daemon.client() as client:
                tokens = [client.users.create(f"u{number}").secret for number in range(4)]
            yield Limited(daemon=daemon, address=address_of(daemon), tokens=tuple(tokens))


def refused_after(ask: Callable[[int], tuple[int, dict[str, str], dict[str, str]]], usual: int) -> int:
    """Ask until it is refused and tell how often it was not; a slow host may get one more each minute."""
    for number in range(AT_ONCE + PATIENCE):
        status, headers, problem = ask(number)
        if status == 429:
            assert problem["code"] == "rate_limited"
            assert headers["retry-after"] == "60"
            return number
        assert status == usual
    raise AssertionError("it was never refused")


def test_a_user_reads_so_often_and_is_told_when_to_come_again(limited: Limited) -> None:
    assert refused_after(lambda _: limited.ask("GET", PATH, limited.tokens[0]), 200) >= AT_ONCE
    # Others, other kinds, another key of the same user, and the host's own socket:
    assert limited.ask("GET", PATH, limited.tokens[1])[0] == 200
    assert limited.ask("DELETE", f"{PATH}/none", limited.tokens[0])[0] == 404
    with limited.daemon.client() as client:
        for _ in range(AT_ONCE * 3):
            client.volumes()
        second = client.users.create_key("u0").secret
    assert refused_after(lambda _: limited.ask("GET", PATH, second), 200) < AT_ONCE


def test_what_makes_something_is_counted_apart(limited: Limited) -> None:
    body = b'{"name": "data", "size_mb": 1}'
    answered = refused_after(lambda _: limited.ask("POST", PATH, limited.tokens[2], body), 400)
    assert answered >= AT_ONCE
    with limited.daemon.client() as client:
        entries = client.users.audit(user="u2")
    assert [entry.status for entry in entries] == [400] * answered


def test_who_is_nobody_too_often_is_told_so_and_somebody_is_let_in(limited: Limited) -> None:
    assert refused_after(lambda number: limited.ask("GET", PATH, f"hk_{number:064x}"), 401) >= AT_ONCE
    assert limited.ask("GET", PATH, limited.tokens[3])[0] == 200


async def test_buckets_fill_again_and_a_network_counts_as_one() -> None:
    turnstile = Turnstile(ApiRates(read=PerMinute(count=60, burst=2), address=PerMinute(count=60, burst=1), use=None))
    await turnstile.take("read", "ada", 0.0)
    await turnstile.take("read", "ada", 0.0)
    with pytest.raises(RateLimited) as refused:
        await turnstile.take("read", "ada", 0.5)
    assert refused.value.retry_after_s == 1.0
    await turnstile.take("read", "bob", 0.5)
    await turnstile.take("read", "ada", 1.1)
    await turnstile.take_address("address", "2001:db8::1", 0.0)
    with pytest.raises(RateLimited):
        await turnstile.take_address("address", "2001:db8::2", 0.0)
    await turnstile.take_address("address", "2001:db8:0:1::1", 0.0)
    for _ in range(1000):
        await turnstile.take("use", "ada", 0.0)


def test_daemons_on_one_redis_count_together_and_go_on_without_it(tmp_path: Path) -> None:
    rates = ("--listen", "127.0.0.1:0", "--rate=address=1/10")
    with redis_server() as redis, contextlib.ExitStack() as opened:
        config = tmp_path / "hearth.toml"
        config.write_text(f'redis_url = "{redis.url}"\n')
        config.chmod(0o600)
        daemons = []
        for _ in range(2):
            data = opened.enter_context(data_directory())
            daemons.append(opened.enter_context(running_daemon(data, "--config", str(config), *rates)))
        places = [address_of(daemon) for daemon in daemons]

        def statuses(rounds: int, source: str) -> list[int]:
            return [ask_over_tcp(place, "GET", "/health", source=source)[0] for _ in range(rounds) for place in places]

        def told() -> list[list[str]]:
            return [[entry["event"] for entry in daemon.log() if "shared" in entry["event"]] for daemon in daemons]

        for number in range(2, 62):
            source, before = f"127.0.0.{number}", told()
            asked = statuses(7, source)  # of each daemon by itself ten could be had
            if told() == before and all(not words or words[-1] == SHARED for words in before):
                break
            time.sleep(1)  # Redis was too slow for one of them, which counts for itself for some seconds
        assert asked[:10] == [200] * 10
        assert 429 in asked[10:]
        redis.stop()
        assert statuses(1, source) == [200, 200]
        daemons[0].wait_for_event("rates are not shared: each daemon counts for itself")


def test_a_url_of_redis_that_is_none_is_told_at_the_start_without_its_password(tmp_path: Path) -> None:
    config = tmp_path / "hearth.toml"
    config.write_text('redis_url = "http://:hush-hush@127.0.0.1"\n')
    config.chmod(0o600)
    command = [sys.executable, "-m", "hearth.server", "serve", "--config", str(config)]
    ended = subprocess.run(command, capture_output=True, timeout=WAIT_S, check=False)
    assert ended.returncode == 1
    assert b"redis_url" in ended.stderr and b"hush-hush" not in ended.stderr


@pytest.mark.parametrize("word", ["read=10", "read=0/1", "read=1/", "tea=1/1", "read=x/y", "read=-1/2"])
def test_a_rate_that_is_none_ends_with_2(word: str) -> None:
    command = [sys.executable, "-m", "hearth.server", "serve", f"--rate={word}"]
    assert subprocess.run(command, capture_output=True, timeout=WAIT_S, check=False).returncode == 2


async def test_a_body_that_trickles_is_refused_and_one_that_is_whole_may_be_waited_with() -> None:
    seen: list[str] = []

    async def read_all(_scope: Scope, receive: Receive, _send: Send) -> None:
        while (message := await receive())["type"] == "http.request":
            seen.append(message["type"])

    async def trickle() -> Message:
        await asyncio.sleep(0.02)
        return {"type": "http.request", "body": b"", "more_body": True}

    parts: list[Message] = [{"type": "http.request", "body": b"x", "more_body": False}]

    async def whole() -> Message:
        if parts:
            return parts.pop()
        await asyncio.sleep(0.5)
        return {"type": "http.disconnect"}

    scope: Scope = {"type": "http", "headers": []}
    app = BodyLimit(read_all, max_bytes=10, body_s=0.2)
    with pytest.raises(RequestTimeout) as refused:
        await app(scope, trickle, nothing)
    assert status_of(refused.value) == 408
    seen.clear()
    await app(scope, whole, nothing)
    assert seen == ["http.request"]


async def nothing(_message: Message) -> None:
    """Nobody answers."""
