"""Waiting for what a guest answers while its machine lives."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from hearth.engine.base import Machine, MachineDied


async def while_it_lives(machine: Machine, asking: Coroutine[Any, Any, None], *, until: str) -> None:
    """Wait for a guest's answer, but not for that of a dead one: its socket may say nothing of that.

    Raises:
        MachineDied: the machine ended before.
    """
    answer = asyncio.create_task(asking, name=f"waiting until {until}")
    ended = asyncio.create_task(machine.wait(), name="machine ended")
    try:
        await asyncio.wait({answer, ended}, return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            raise MachineDied(
                f"the machine ended before {until}",
                details=str(ended.result()),
                resolution="run 'hearth doctor'; the details hold the guest's last words",
            )
        await answer
    finally:
        for task in (answer, ended):
            task.cancel()
        await asyncio.gather(answer, ended, return_exceptions=True)
