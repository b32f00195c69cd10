"""The thermal loop on real machines, with short times: what nobody uses cools, and what counts as use keeps it hot."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
import pytest_asyncio
from tests.control.conftest import House
from tests.machines.sleepers import QUIET, VmHouse, opened, start_threads, until
from tests.machines.test_first_light import vmms_of

from hearth.config import DataDirectory
from hearth.control.heat import HeatLoop, host_reader
from hearth.control.thermal import Skip, policy_of
from hearth.errors import NotFound
from hearth.host.clock import SystemClock
from hearth.model import Heat, Sandbox, SandboxState
from hearth.wire.messages import ExecRequest

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow]

BRISK = replace(QUIET, idle_pause_s=0.3, idle_stop_s=1.5)
INTERVAL_S = 0.2
HOUR_S = 3600.0
LOOKS = 8
"""Longer than a sandbox may idle."""
WORK = ExecRequest(argv=["/bin/sh", "-c", "while :; do :; done"], detach=True)
TERMINAL = ExecRequest(argv=["/bin/sh"], tty=True, session=True)


class LoopClock(SystemClock):
    """The time of the loop alone, which may be ahead."""

    ahead_s = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.ahead_s


@pytest.fixture(scope="module")
def clock() -> LoopClock:
    return LoopClock()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(slept_in: DataDirectory, clock: LoopClock) -> AsyncIterator[VmHouse]:
    await start_threads()
    async with opened(slept_in) as house:
        async with house.sandbox("first"):
            """The template is in memory from here on."""
        heat = HeatLoop(
            house.sandboxes.thermostat(),
            host=host_reader(slept_in.root),
            clock=clock,
            policy=policy_of(BRISK),
            interval_s=INTERVAL_S,
        )
        loop = asyncio.create_task(heat.run(), name="brisk heat loop")
        yield replace_loop(house, heat)
        loop.cancel()
        await asyncio.gather(loop, return_exceptions=True)


def replace_loop(house: VmHouse, heat: HeatLoop) -> VmHouse:
    """Give the house with a loop beside its own, which looks but seldom."""
    return VmHouse(House(house.data, replace(house.daemon, heat=heat), house.admin))


async def is_skipped(house: VmHouse, sandbox: Sandbox, skip: Skip) -> None:
    """See that the loop leaves a sandbox as it is, for this reason, for longer than one may be idle."""
    skips = house.daemon.heat.counters.skips
    enough = skips[skip] + LOOKS
    await until(lambda: skips[skip] >= enough, f"left as it is: {skip}")
    assert house.heat(sandbox) is Heat.HOT


async def cools(house: VmHouse, sandbox: Sandbox) -> None:
    await until(lambda: house.heat(sandbox) is not Heat.HOT, "it is paused")


async def test_an_unused_sandbox_is_paused_then_stopped_and_wakes_for_who_wants_it(
    house: VmHouse, clock: LoopClock
) -> None:
    async with house.sandbox(idle_stop_s=HOUR_S) as dev:
        await house.mark(dev, "kept")
        await until(lambda: house.heat(dev) is Heat.WARM, "it is paused")
        assert len(vmms_of(dev.id)) == 1
        clock.ahead_s = HOUR_S
        try:
            await until(lambda: house.heat(dev) is Heat.COLD and not house.resident(dev).lock.locked(), "it is stopped")
        finally:
            clock.ahead_s = 0.0
        assert ((await house.look(dev)).state, vmms_of(dev.id)) == (SandboxState.STOPPED, [])
        assert await house.marks(dev) == ("kept", "kept")


async def test_a_client_that_is_attached_keeps_a_sandbox_hot(house: VmHouse) -> None:
    async with house.sandbox() as dev:
        async with house.sandboxes.awake(house.admin, dev.id) as guest:
            shell = guest.sessions.open(TERMINAL)
            await shell.__aenter__()
        await is_skipped(house, dev, Skip.ATTACHED)
        await shell.__aexit__(None, None, None)
        await cools(house, dev)


async def test_a_command_that_runs_keeps_a_sandbox_hot(house: VmHouse) -> None:
    async with house.sandbox() as dev:
        request = ExecRequest(argv=["/bin/sh", "-c", "echo up; read line"])
        async with house.sandboxes.execute(house.admin, dev.id, request) as running:
            assert (await anext(running)).data == b"up\n"
            await is_skipped(house, dev, Skip.OPERATION)
        await cools(house, dev)


async def test_a_sandbox_that_is_to_stay_hot_does(house: VmHouse) -> None:
    async with house.sandbox(keep_hot=True) as dev:
        await is_skipped(house, dev, Skip.KEEP_HOT)


async def test_work_of_the_guest_without_a_client_keeps_it_hot(house: VmHouse) -> None:
    async with house.sandbox() as dev:
        async with house.sandboxes.awake(house.admin, dev.id) as guest:
            started = await guest.start_detached(WORK)
        await is_skipped(house, dev, Skip.IN_USE)
        await house.shell(dev, f"kill -9 {started.pid}")
        await cools(house, dev)


async def test_a_guest_too_busy_to_answer_is_not_taken_for_an_idle_one(house: VmHouse) -> None:
    async with house.sandbox() as dev:
        (pid,) = vmms_of(dev.id)
        os.kill(pid, signal.SIGSTOP)
        try:
            skips = house.daemon.heat.counters.skips
            enough = skips[Skip.IN_USE] + 2
            await until(lambda: skips[Skip.IN_USE] >= enough or house.heat(dev) is not Heat.HOT, "it was looked at")
            assert house.heat(dev) is Heat.HOT
        finally:
            os.kill(pid, signal.SIGCONT)
        await cools(house, dev)


async def test_a_sandbox_whose_time_is_over_goes_whether_it_is_asleep_or_not(house: VmHouse) -> None:
    dev = await house.create("dev", ttl_s=2)

    async def is_gone() -> bool:
        try:
            await house.look(dev)
        except NotFound:
            return True
        return False

    await until(is_gone, "it is destroyed")
    assert vmms_of(dev.id) == []
