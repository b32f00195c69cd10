"""Who waits for whom when captures share the memory they may hold."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
import pytest_asyncio

from hearth.engine.budget import LEAST_BYTES, Budget, Turn, host_share

TOTAL = 100


@pytest.fixture
def budget() -> Budget:
    return Budget(TOTAL)


@pytest_asyncio.fixture
async def held() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


class Caller:
    """Somebody who wants a part and holds it until told to go."""

    def __init__(self, budget: Budget, wanted: int) -> None:
        self.turn: Turn | None = None
        self._go = asyncio.Event()
        self.task = asyncio.create_task(self._run(budget, wanted))

    async def _run(self, budget: Budget, wanted: int) -> None:
        async with budget.turn(wanted, stays_paused=False) as self.turn:
            await self._go.wait()

    def holds(self) -> bool:
        return self.turn is not None

    async def leave(self) -> None:
        self._go.set()
        await self.task


async def rounds() -> None:
    """Let everybody who can go on do so."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_nobody_waits_while_there_is_enough_and_all_is_given_back(budget: Budget, held: AsyncExitStack) -> None:
    for wanted in (60, 40):
        turn = await held.enter_async_context(budget.turn(wanted, stays_paused=True))
        assert (turn.held_bytes, turn.stays_paused) == (wanted, True)
    assert budget.free_bytes == 0
    await held.aclose()
    assert budget.free_bytes == TOTAL


async def test_first_come_first_served_so_that_a_large_one_is_not_passed_by_for_ever(budget: Budget) -> None:
    first, large, small = Caller(budget, 50), Caller(budget, 90), Caller(budget, 10)
    await rounds()
    assert (first.holds(), large.holds(), small.holds()) == (True, False, False)
    await first.leave()
    await rounds()
    assert (large.holds(), small.holds()) == (True, True)
    await asyncio.gather(large.leave(), small.leave())
    assert budget.free_bytes == TOTAL


async def test_what_is_larger_than_the_budget_goes_alone(budget: Budget) -> None:
    small, huge, another = Caller(budget, 1), Caller(budget, 10 * TOTAL), Caller(budget, 1)
    await rounds()
    assert not huge.holds()
    await small.leave()
    await rounds()
    assert huge.turn is not None
    assert huge.turn.held_bytes == TOTAL
    assert not another.holds()
    huge.turn.needs(5 * TOTAL)  # as it was: it is still alone
    await rounds()
    assert not another.holds()
    await huge.leave()
    await rounds()
    assert another.holds()
    await another.leave()
    assert budget.free_bytes == TOTAL


async def test_what_turns_out_not_to_be_needed_goes_to_the_next_at_once(budget: Budget) -> None:
    first, second = Caller(budget, 80), Caller(budget, 80)
    await rounds()
    assert first.turn is not None
    assert not second.holds()
    first.turn.needs(20)
    await rounds()
    assert second.holds()
    assert (first.turn.held_bytes, budget.free_bytes) == (20, 0)
    await asyncio.gather(first.leave(), second.leave())
    assert budget.free_bytes == TOTAL


@pytest.mark.parametrize("is_served", [False, True])
async def test_who_leaves_while_waiting_takes_nothing_along_and_lets_others_pass(
    budget: Budget, is_served: bool
) -> None:
    first, leaver, behind = Caller(budget, 50), Caller(budget, 90), Caller(budget, 40)
    await rounds()
    if is_served:  # in the same moment, before it knows
        budget.release(40)  # more than there was: all that counts here is who gets it
    leaver.task.cancel()
    await asyncio.gather(leaver.task, return_exceptions=True)
    await rounds()
    assert behind.holds()
    await asyncio.gather(first.leave(), behind.leave())
    assert budget.free_bytes == TOTAL + (40 if is_served else 0)
    assert leaver.task.cancelled()


def test_the_host_gives_a_share_of_what_it_has() -> None:
    assert host_share() >= LEAST_BYTES
