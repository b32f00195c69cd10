from __future__ import annotations

import asyncio
import threading

import pytest

from hearth.host.threads import KeptThread, on_own_thread


async def test_the_result_comes_from_another_thread_that_is_gone_afterwards() -> None:
    def work() -> tuple[int, str]:
        return threading.get_ident(), threading.current_thread().name

    ident, name = await on_own_thread("worker", work)
    assert name == "worker"
    assert ident != threading.get_ident()
    assert "worker" not in {thread.name for thread in threading.enumerate()}


async def test_an_error_is_the_callers() -> None:
    def work() -> None:
        raise PermissionError("no")

    with pytest.raises(PermissionError, match="no"):
        await on_own_thread("worker", work)


async def test_a_cancelled_caller_waits_for_the_work_and_its_result_is_discarded() -> None:
    began, go_on = threading.Event(), threading.Event()
    discarded: list[str] = []

    def work() -> str:
        began.set()
        go_on.wait(60)
        return "made in the last moment"

    task = asyncio.create_task(on_own_thread("worker", work, discard=discarded.append))
    await asyncio.to_thread(began.wait, 60)
    task.cancel()
    await asyncio.sleep(0)
    assert not task.done()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert discarded == ["made in the last moment"]


async def test_an_error_after_cancellation_does_not_hide_the_cancellation() -> None:
    began, go_on = threading.Event(), threading.Event()

    def work() -> None:
        began.set()
        go_on.wait(60)
        raise OSError("late")

    task = asyncio.create_task(on_own_thread("worker", work))
    await asyncio.to_thread(began.wait, 60)
    task.cancel()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_kept_thread_does_one_piece_after_the_other_and_ends_when_told() -> None:
    kept, began, go_on = KeptThread("kept"), threading.Event(), threading.Event()
    done: list[int] = []

    def slow() -> int:
        began.set()
        assert go_on.wait(30)
        done.append(1)
        return threading.get_ident()

    def quick() -> int:
        done.append(2)
        return threading.get_ident()

    def wrong() -> None:
        raise PermissionError("no")

    first, second = asyncio.create_task(kept.run(slow)), asyncio.create_task(kept.run(quick))
    await asyncio.to_thread(began.wait, 30)
    first.cancel()
    await asyncio.sleep(0)
    assert not first.done(), "it waits for the work that it began"
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await first
    ident = await second
    assert ident != threading.get_ident()
    assert done == [1, 2]
    with pytest.raises(PermissionError, match="no"):
        await kept.run(wrong)
    assert await kept.run(threading.get_ident) == ident
    kept.close()
    kept.close()
    assert ident not in {thread.ident for thread in threading.enumerate()}
    await kept.run(quick)  # begins another
    kept.close()
