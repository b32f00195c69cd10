"""Waiting that a cancellation delays but does not break: for work that must not stop half-way."""

from __future__ import annotations

import asyncio
from typing import Any


async def until_done(work: asyncio.Future[Any]) -> None:
    """Return once ``work`` has ended, however it did; its result stays with it.

    Raises:
        CancelledError: the caller was cancelled meanwhile; raised only after ``work`` has ended.
    """
    cancelled: asyncio.CancelledError | None = None
    while not work.done():
        try:
            await asyncio.wait({work})
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled
