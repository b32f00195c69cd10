"""``AsyncClient`` and ``AsyncSandbox``: the asyncio shell over ``calls``; the twin of ``client``."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from types import TracebackType
from typing import Self, TypeVar, Unpack

from hearth.api.limits import MAX_LIST_LIMIT
from hearth.api.schemas import Health, ImageView, SandboxView
from hearth.sdk import calls
from hearth.sdk.async_transport import AsyncIncoming, AsyncTransport
from hearth.sdk.calls import Call, CreateOptions, ExecOptions, read_problem
from hearth.sdk.endpoint import find_endpoint
from hearth.sdk.results import ExecReader, Output, Result, result_of

Value = TypeVar("Value")


class AsyncClient:
    """A daemon. Without arguments it is found by HEARTH_URL and HEARTH_TOKEN, else in the data directory."""

    def __init__(self, url: str | None = None, token: str | None = None) -> None:
        self._transport = AsyncTransport(find_endpoint(url, token))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections that are kept."""
        await self._transport.close()

    async def call(self, call: Call[Value]) -> Value:
        """Carry out one operation."""
        return call.read(await self._transport.fetch(call.request))

    async def create(self, **options: Unpack[CreateOptions]) -> AsyncSandbox:
        """Create a sandbox and wait until it runs; an existing one of this name is given as it is."""
        return AsyncSandbox(self, await self.call(calls.create(options)))

    async def get(self, ref: str) -> AsyncSandbox:
        """Give the sandbox with this id or name."""
        return AsyncSandbox(self, await self.call(calls.get(ref)))

    async def list(self, labels: Mapping[str, str] | None = None) -> list[AsyncSandbox]:
        """Give all sandboxes that carry all of ``labels``."""
        found: list[AsyncSandbox] = []
        cursor: str | None = None
        while True:
            page = await self.call(calls.list_page(labels=labels or {}, cursor=cursor, limit=MAX_LIST_LIMIT))
            found += [AsyncSandbox(self, view) for view in page.items]
            cursor = page.next_cursor
            if cursor is None:
                return found

    async def destroy(self, ref: str) -> None:
        """Destroy the sandbox with this id or name."""
        await self.call(calls.destroy(ref))

    async def run(self, ref: str, cmd: Sequence[str], **options: Unpack[ExecOptions]) -> Result:
        """Run a command to its end in the sandbox with this id or name; any exit code is a result."""
        return result_of(await self.call(calls.run(ref, cmd, options)))

    @contextlib.asynccontextmanager
    async def start(self, ref: str, cmd: Sequence[str], **options: Unpack[ExecOptions]) -> AsyncIterator[AsyncRunning]:
        """Start a command and read its output as it comes; leaving the context early kills it."""
        async with self._transport.open(calls.start(ref, cmd, options)) as incoming:
            if incoming.reader.status != 200:
                raise read_problem(await incoming.whole())
            yield AsyncRunning(incoming)

    async def images(self) -> Sequence[ImageView]:
        """Give the images of the host."""
        return (await self.call(calls.images())).items

    async def health(self) -> Health:
        """Ask the daemon how it is."""
        return await self.call(calls.health())


class AsyncRunning:
    """A command under way: iterate for its output, then ask for its exit code."""

    def __init__(self, incoming: AsyncIncoming) -> None:
        self._incoming = incoming
        self._reader = ExecReader()

    async def __aiter__(self) -> AsyncIterator[Output]:
        async for data in self._incoming:
            for output in self._reader.feed(data):
                yield output
        self._reader.finish()

    @property
    def exit_code(self) -> int:
        """0-255, or 128+n when signal n ended it; known once the output has been read to its end."""
        return self._reader.finish()


class AsyncSandbox:
    """A computer of its own; as an async context manager it is destroyed at the end."""

    def __init__(self, client: AsyncClient, view: SandboxView) -> None:
        self.client = client
        self.view = view

    @classmethod
    async def create(cls, client: AsyncClient | None = None, **options: Unpack[CreateOptions]) -> AsyncSandbox:
        """Create a sandbox and wait until it runs."""
        return await (client or AsyncClient()).create(**options)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.destroy()

    @property
    def id(self) -> str:
        return self.view.id

    @property
    def name(self) -> str:
        return self.view.name

    async def run(self, cmd: Sequence[str], **options: Unpack[ExecOptions]) -> Result:
        """Run a command to its end; any exit code is a result, ``.check()`` makes it an error."""
        return await self.client.run(self.id, cmd, **options)

    def start(
        self, cmd: Sequence[str], **options: Unpack[ExecOptions]
    ) -> contextlib.AbstractAsyncContextManager[AsyncRunning]:
        """Start a command: ``async with sandbox.start(["make"]) as running: async for output in running: ...``."""
        return self.client.start(self.id, cmd, **options)

    async def destroy(self) -> None:
        """Destroy the sandbox and all it holds."""
        await self.client.destroy(self.id)
