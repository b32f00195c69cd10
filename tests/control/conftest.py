"""Use cases without HTTP: a daemon in this process, with the development engine's real agents."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager

import pytest
from tests.server.daemon import data_directory, publish_images

from hearth.config import DataDirectory, Settings
from hearth.control.daemon import Daemon, open_daemon
from hearth.errors import HearthError
from hearth.model import User
from hearth.wire.messages import ExecRequest

LOCAL = Settings(engine="local", boot_timeout_s=30, min_free_mib=0)


class House:
    """A daemon, its administrator and short words for what tests do."""

    def __init__(self, data: DataDirectory, daemon: Daemon, admin: User) -> None:
        self.data = data
        self.daemon = daemon
        self.sandboxes = daemon.sandboxes
        self.admin = admin

    async def output(self, reference: str, *argv: str) -> tuple[bytes, int]:
        """Run a command to its end: its stdout and exit code."""
        out = bytearray()
        async with self.sandboxes.execute(self.admin, reference, ExecRequest(argv=list(argv))) as running:
            async for chunk in running:
                if chunk.stream == "stdout":
                    out += chunk.data
            return bytes(out), running.exit_code

    async def destroy_all(self) -> None:
        """Leave no sandbox to the next test."""
        page = await self.sandboxes.list(self.admin, labels={}, limit=100, cursor=None)
        for sandbox in page.items:
            with contextlib.suppress(HearthError):
                await self.sandboxes.destroy(self.admin, sandbox.id)


OpenHouse = Callable[[], AbstractAsyncContextManager[House]]


@pytest.fixture
def data() -> Iterator[DataDirectory]:
    with data_directory() as directory:
        publish_images(directory)
        yield directory


@pytest.fixture
def opened(data: DataDirectory) -> OpenHouse:
    """Open the daemon of ``data``; sandboxes live on when it closes."""

    @contextlib.asynccontextmanager
    async def open_house() -> AsyncIterator[House]:
        async with open_daemon(data, LOCAL) as daemon:
            yield House(data, daemon, await daemon.users.authenticate(data.admin_key.read_text().strip()))

    return open_house


@pytest.fixture
async def house(opened: OpenHouse) -> AsyncIterator[House]:
    async with opened() as house:
        yield house
        await house.destroy_all()


@pytest.fixture
async def opened_full(data: DataDirectory) -> AsyncIterator[House]:
    """A house that wants more free space than any disk has."""
    settings = Settings(engine="local", min_free_mib=2**40)
    async with open_daemon(data, settings) as daemon:
        yield House(data, daemon, await daemon.users.authenticate(data.admin_key.read_text().strip()))
