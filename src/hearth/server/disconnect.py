"""Work that ends when its caller leaves."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect
from starlette.types import Receive

Result = TypeVar("Result")


async def unless_gone(receive: Receive, work: Coroutine[Any, Any, Result]) -> Result:
    """Run ``work``; cancel it, and wait until it has ended, when the caller disconnects first.

    The request's body must have been read, so that the next message can only be the disconnect.

    Raises:
        ClientDisconnect: the caller left.
    """
    working = asyncio.create_task(work, name="request work")
    watching = asyncio.create_task(_disconnected(receive), name="request watch")
    try:
        await asyncio.wait((working, watching), return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise ClientDisconnect
    finally:
        await end_task(watching)
        await end_task(working)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def end_task(task: asyncio.Task[Any]) -> None:
    """Cancel a task and wait until it is over; what it raises no longer interests anybody."""
    if not task.done():
        task.cancel()
        await asyncio.wait((task,))
    if not task.cancelled():
        task.exception()
