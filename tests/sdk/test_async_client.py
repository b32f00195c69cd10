"""The asyncio SDK at a real daemon: the same operations, and cancellation."""

from __future__ import annotations

import asyncio
import os
import select
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.server.daemon import RunningDaemon

from hearth.errors import NotFound, StartFailed
from hearth.sdk import AsyncClient, AsyncSandbox, Output, Sandbox

END_S = 60


@pytest.fixture
async def client(daemon: RunningDaemon) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(daemon.url, daemon.token) as made:
        yield made


async def test_a_sandbox_lives_as_long_as_its_context(client: AsyncClient) -> None:
    async with await AsyncSandbox.create(client, name="short-async", labels={"a": "b"}) as sandbox:
        assert (await client.get("short-async")).id == sandbox.id
        assert [each.id for each in await client.list({"a": "b"})] == [sandbox.id]
    with pytest.raises(NotFound):
        await client.get("short-async")


async def test_a_command_gives_a_result(client: AsyncClient, sandbox: Sandbox) -> None:
    result = await client.run(sandbox.id, ["sh", "-c", "cat; exit 3"], stdin="in")
    assert (result.exit_code, result.stdout) == (3, "in")
    with pytest.raises(StartFailed):
        await client.run(sandbox.id, ["/nonexistent"])


async def test_a_stream_gives_its_pieces_and_then_the_exit_code(client: AsyncClient, sandbox: Sandbox) -> None:
    async with client.stream(sandbox.id, ["sh", "-c", "echo a; exit 5"]) as running:
        assert [output async for output in running] == [Output(stream="stdout", data=b"a\n")]
        assert running.exit_code == 5
    with pytest.raises(NotFound):
        async with client.stream("nosuch", ["true"]):
            pass


async def test_a_cancelled_command_is_gone_from_the_sandbox(client: AsyncClient, sandbox: Sandbox) -> None:
    pid: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def follow() -> None:
        async with client.stream(sandbox.id, ["sh", "-c", "echo $$; sleep 1000"]) as running:
            async for output in running:
                pid.set_result(int(output.data))

    following = asyncio.create_task(follow())
    waited_for: list[asyncio.Future[Any]] = [pid, following]
    await asyncio.wait(waited_for, return_when=asyncio.FIRST_COMPLETED)
    if following.done():
        pytest.fail(f"the command ended before it said its number: {following.exception()}")
    descriptor = os.pidfd_open(pid.result())
    try:
        following.cancel()
        await asyncio.wait([following])
        assert select.select([descriptor], [], [], END_S)[0]
    finally:
        os.close(descriptor)


async def test_requests_of_many_tasks_do_not_mix(client: AsyncClient, sandbox: Sandbox) -> None:
    results = await asyncio.gather(*(client.run(sandbox.id, ["echo", str(number)]) for number in range(12)))
    assert [result.stdout for result in results] == [f"{number}\n" for number in range(12)]
    assert (await client.health()).status == "healthy"
    assert len(await client.images.list()) == 3
