"""Work on local files for the asynchronous half of the SDK: a disk that is slow must not hold up the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import ParamSpec, TypeVar

Parameters = ParamSpec("Parameters")
Value = TypeVar("Value")
Lock = asyncio.Lock


async def aside(work: Callable[Parameters, Value], *args: Parameters.args, **options: Parameters.kwargs) -> Value:
    """Do it in a thread."""
    return await asyncio.to_thread(work, *args, **options)


async def try_acquire(lock: Lock) -> bool:
    """Take a lock unless somebody has it."""
    return not lock.locked() and await lock.acquire()
