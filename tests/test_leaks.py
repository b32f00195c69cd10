"""The watch over what tests leave behind, where a loop with work of its own outlives the test."""

from __future__ import annotations

import asyncio
import shutil
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from tests import leaks

pytestmark = pytest.mark.asyncio(loop_scope="module")

BUSY_S = 0.2


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def wanted() -> AsyncIterator[asyncio.Event]:
    """Set it to have work begin that nobody waits for: it holds a socket for a moment."""
    event = asyncio.Event()

    async def work() -> None:
        await event.wait()
        with socket.socket():
            await asyncio.sleep(BUSY_S)

    async with asyncio.TaskGroup() as group:
        group.create_task(work())
        yield event
        event.set()


async def test_what_the_background_just_does_is_not_left_behind(wanted: asyncio.Event) -> None:
    wanted.set()
    await asyncio.sleep(0)


async def test_a_process_whose_name_is_no_text_is_seen_like_others(tmp_path: Path) -> None:
    """The kernel keeps 15 bytes of a name, here with half of the last letter."""
    program = tmp_path / ("x" * 14 + "ö")
    program.symlink_to(shutil.which("sleep") or "/bin/sleep")
    process = await asyncio.create_subprocess_exec(program, "600")
    try:
        assert any(seen.startswith(f"{process.pid} ") for seen in leaks.take()["process"])
    finally:
        process.kill()
        await process.wait()
