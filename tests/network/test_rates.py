"""What bounds a machine's traffic, and what it leaves alone."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator

import pytest
from tests.network.stage import PATIENCE_S, Guest, Stage, echo_datagrams, inside, stage, within

from hearth.network.policy import PUBLIC as EVERYTHING
from hearth.network.policy import Base, Policy

pytestmark = pytest.mark.root


@pytest.fixture
async def scene() -> AsyncIterator[Stage]:
    async with stage() as made:
        yield made


def shaping(guest: Guest, link: str) -> str:
    return inside(guest.link.namespace, "tc", "qdisc", "show", "dev", link)


async def test_rates_bound_both_ways_and_can_be_edited(scene: Stage) -> None:
    bound = Policy(base=Base.PUBLIC, upload_bytes_per_s=400_000, download_bytes_per_s=400_000)
    guest = await scene.guest("sb-1", policy=bound)
    size = 600_000

    async def transfer() -> float:
        """Send and get back ``size`` bytes; gives the seconds it took."""

        def work() -> float:
            started = time.monotonic()
            with socket.create_connection(("1.2.3.4", 80), PATIENCE_S) as stream:
                stream.recv(64)
                stream.setblocking(False)
                left_out, left_in = size, size
                while left_in:
                    with contextlib.suppress(BlockingIOError):
                        if left_out:
                            left_out -= stream.send(b"x" * min(left_out, 65_536))
                    with contextlib.suppress(BlockingIOError):
                        left_in -= len(stream.recv(65_536))
                    time.sleep(0.001)
            return time.monotonic() - started

        return await within(guest.space, work)

    bounded_s = await transfer()
    assert bounded_s > 0.7 * size / 400_000
    assert "tbf" in shaping(guest, "net0")
    await scene.network.fabric.apply("sb-1", EVERYTHING)
    # Not by the clock: how fast it is without a bound is up to who else uses this machine.
    assert "tbf" not in shaping(guest, "net0")
    await transfer()
    await echo_datagrams(scene.world, "8.8.8.8", 4001, scene.stack)
    assert await guest.send("8.8.8.8", 4001) == "echo"


async def test_the_agents_link_knows_no_rate(scene: Stage) -> None:
    bound = Policy(upload_bytes_per_s=10_000, download_bytes_per_s=10_000)
    guest = await scene.guest("sb-1", policy=bound)
    await guest.serve(1024, "agent", scene.stack)
    stream = await scene.network.dialer("sb-1").connect(1024)
    with stream:
        loop = asyncio.get_running_loop()
        assert await loop.sock_recv(stream, 64) == b"agent"
        await loop.sock_sendall(stream, bytes(200_000))
        left = 200_000
        while left:
            left -= len(await loop.sock_recv(stream, 65_536))
    assert "tbf" in shaping(guest, "net0")
    assert "tbf" not in shaping(guest, "tap0"), "the daemon's own way to the agent"
