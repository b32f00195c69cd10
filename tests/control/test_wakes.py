"""Wakes for strangers: one for all who wait, only so many at once, and a dying machine is not booted for ever."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest

from hearth.control.wakes import Busy, Wakes
from hearth.errors import EngineFailed
from hearth.model import Sandbox, SandboxSpec, SandboxState


class Stage:
    """Sandboxes that are cold until somebody opens the gate for their wakes."""

    def __init__(self, *, at_once: int = 4, waiting: int = 256, of_owner: int = 4) -> None:
        self.hot: set[str] = set()
        self.begun: list[tuple[str, bool]] = []
        self.gate = asyncio.Event()
        self.failure: Exception | None = None
        self.wakes = Wakes(
            lambda sandbox: sandbox.id not in self.hot,
            self.make_hot,
            at_once=at_once,
            at_once_of_owner=of_owner,
            waiting=waiting,
            waiting_of_owner=of_owner,
        )

    async def make_hot(self, sandbox: Sandbox, force: bool) -> None:
        self.begun.append((sandbox.id, force))
        await self.gate.wait()
        if self.failure is not None:
            raise self.failure
        self.hot.add(sandbox.id)


def sandbox(name: str, state: SandboxState = SandboxState.STOPPED, *, owner: str = "user-ada") -> Sandbox:
    now = datetime.now(UTC)
    return Sandbox(id=f"sb-{name}", owner=owner, spec=SandboxSpec(name=name), state=state, created_at=now)


async def test_many_callers_are_one_wake() -> None:
    stage = Stage(of_owner=50)
    callers = [asyncio.create_task(stage.wakes.wake(sandbox("web"), patience_s=10)) for _ in range(50)]
    await asyncio.sleep(0)
    stage.gate.set()
    assert await asyncio.gather(*callers) == [True] * 50
    assert stage.begun == [("sb-web", False)]
    assert await stage.wakes.wake(sandbox("web"), patience_s=0) is True
    assert len(stage.begun) == 1


async def test_who_has_no_patience_is_told_and_the_wake_goes_on() -> None:
    stage = Stage()
    assert await stage.wakes.wake(sandbox("web"), patience_s=0.01) is False
    assert len(stage.wakes) == 1
    stage.gate.set()
    await stage.wakes.close()
    assert stage.hot == {"sb-web"}


async def test_a_caller_who_leaves_does_not_stop_it() -> None:
    stage = Stage()
    caller = asyncio.create_task(stage.wakes.wake(sandbox("web"), patience_s=10))
    await asyncio.sleep(0)
    caller.cancel()
    await asyncio.wait((caller,))
    stage.gate.set()
    await stage.wakes.close()
    assert stage.hot == {"sb-web"}


async def test_beyond_the_bound_others_come_again() -> None:
    stage = Stage(at_once=2, waiting=3)
    callers = [asyncio.create_task(stage.wakes.wake(sandbox(name), patience_s=10)) for name in ("a", "b", "a")]
    await asyncio.sleep(0)
    with pytest.raises(Busy, match="being woken") as refused:
        await stage.wakes.wake(sandbox("c"), patience_s=10)
    assert refused.value.retry_after_s > 0
    with pytest.raises(Busy, match="wait already"):
        await stage.wakes.wake(sandbox("a"), patience_s=10)
    stage.gate.set()
    assert await asyncio.gather(*callers) == [True] * 3
    assert await stage.wakes.wake(sandbox("c"), patience_s=10) is True


async def test_one_owners_slow_sandboxes_leave_room_for_others() -> None:
    stage = Stage(at_once=4, waiting=8, of_owner=2)
    mine = [asyncio.create_task(stage.wakes.wake(sandbox(name), patience_s=10)) for name in ("a", "b")]
    await asyncio.sleep(0)
    for name in ("c", "a"):
        with pytest.raises(Busy):
            await stage.wakes.wake(sandbox(name), patience_s=10)
    theirs = asyncio.create_task(stage.wakes.wake(sandbox("eves", owner="user-eve"), patience_s=10))
    await asyncio.sleep(0)
    stage.gate.set()
    assert await asyncio.gather(*mine, theirs) == [True] * 3
    assert await stage.wakes.wake(sandbox("c"), patience_s=10) is True


async def test_all_learn_of_a_failure_and_the_next_tries_anew() -> None:
    stage = Stage()
    stage.failure = EngineFailed("the monitor ended")
    stage.gate.set()
    for _ in range(2):
        with pytest.raises(EngineFailed):
            await stage.wakes.wake(sandbox("web"), patience_s=10)
    assert len(stage.begun) == 2


async def test_what_ended_by_itself_is_booted_but_not_again_at_once() -> None:
    stage = Stage()
    stage.gate.set()
    for _ in range(2):
        await stage.wakes.wake(sandbox("web", SandboxState.FAILED), patience_s=10)
        stage.hot.clear()
    await stage.wakes.wake(sandbox("db", SandboxState.LOST), patience_s=10)
    assert stage.begun == [("sb-web", True), ("sb-web", False), ("sb-db", True)]
