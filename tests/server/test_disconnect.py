"""Work ends when its caller leaves, and only then."""

from __future__ import annotations

import asyncio

import pytest
from starlette.requests import ClientDisconnect
from starlette.types import Message

from hearth.server.disconnect import unless_gone


class Caller:
    """The receiving side of a request whose body has been read."""

    def __init__(self) -> None:
        self.gone = asyncio.Event()

    async def receive(self) -> Message:
        await self.gone.wait()
        return {"type": "http.disconnect"}


async def test_work_that_ends_first_gives_its_result() -> None:
    async def work() -> int:
        return 7

    assert await unless_gone(Caller().receive, work()) == 7


async def test_what_work_raises_reaches_the_caller_of_it() -> None:
    async def work() -> None:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        await unless_gone(Caller().receive, work())


async def test_work_is_cancelled_and_tidied_up_before_the_request_ends() -> None:
    caller = Caller()
    story: list[str] = []

    async def work() -> None:
        caller.gone.set()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            story.append("tidied")

    with pytest.raises(ClientDisconnect):
        await unless_gone(caller.receive, work())
    assert story == ["tidied"]


async def test_cancelling_the_request_cancels_the_work() -> None:
    started = asyncio.Event()
    story: list[str] = []

    async def work() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            story.append("cancelled")
            raise

    request = asyncio.create_task(unless_gone(Caller().receive, work()))
    await started.wait()
    request.cancel()
    with pytest.raises(asyncio.CancelledError):
        await request
    assert story == ["cancelled"]
