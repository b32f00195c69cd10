"""Blocking work on a thread of its own: the thread may change what it sees of the world (``setns``), because it never
serves anybody else; it dies with its work.
"""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from hearth.host.waiting import until_done

T = TypeVar("T")


def _keep(_result: object) -> None:
    """What is given back owns nothing: nothing to discard."""


async def on_own_thread(name: str, work: Callable[[], T], *, discard: Callable[[T], None] = _keep) -> T:
    """Run ``work`` on a new thread and give its result; 0.1 ms dearer than calling it.

    The work cannot be interrupted: a cancelled caller waits for its end, and the result is handed to ``discard``, so
    that a descriptor made in the last moment is not lost.

    Args:
        name: of the thread, for whoever debugs.
        work: blocking, bounded by itself.
        discard: frees a result nobody will receive.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def run() -> None:
        try:
            result = work()
        except BaseException as error:  # noqa: BLE001 - the thread ends here; its error continues in the caller
            loop.call_soon_threadsafe(future.set_exception, error)
        else:
            loop.call_soon_threadsafe(future.set_result, result)

    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        await asyncio.wait({future})
        if future.exception() is None:
            discard(future.result())
        raise
    finally:
        thread.join()  # it has nothing left to do but to return


async def on_stoppable_thread(name: str, work: Callable[[threading.Event], T]) -> T:
    """Run long blocking ``work`` on a new thread; a cancelled caller sets the event and waits until the work heeds it.

    Args:
        name: of the thread, for whoever debugs.
        work: looks at the event every now and then, and returns soon once it is set.
    """
    unwanted = threading.Event()
    running = asyncio.ensure_future(on_own_thread(name, functools.partial(work, unwanted)))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        unwanted.set()
        await until_done(running)
        if not running.cancelled():
            running.exception()  # it was told to end: what it says about that is of no interest
        raise


class KeptThread:
    """One thread for what one owner does over and over, a piece at a time: half as dear as a thread for each piece.

    Its pieces must leave it as they found it: no ``setns``.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._pool: ThreadPoolExecutor | None = None

    async def run(self, work: Callable[[], T]) -> T:
        """Run ``work``, after what was asked for before; a cancelled caller waits for its end."""
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, thread_name_prefix=self._name)
        future = asyncio.get_running_loop().run_in_executor(self._pool, work)
        await until_done(future)
        return future.result()

    def close(self) -> None:
        """Let the thread end once its work is done, and wait for that; another ``run`` begins a new one."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown()
