"""Commands in sandboxes, by their ids."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Unpack

from hearth.api.exec_schemas import ExecView
from hearth.api.limits import MAX_LIST_LIMIT
from hearth.sdk import calls
from hearth.sdk.async_running import AsyncRunning
from hearth.sdk.async_transport import AsyncTransport
from hearth.sdk.calls import DetachOptions

if TYPE_CHECKING:
    from hearth.sdk.async_client import AsyncClient


class AsyncCommands:
    """The commands of a daemon's sandboxes."""

    def __init__(self, client: AsyncClient, transport: AsyncTransport) -> None:
        self._client = client
        self._transport = transport

    async def detach(self, ref: str, cmd: Sequence[str], **options: Unpack[DetachOptions]) -> ExecView:
        """Start a command that needs no client: ``logs`` gives its output, ``kill`` ends it.

        >>> started = await client.commands.detach("web", ["sleep", "1000"])
        >>> started.state
        'running'
        >>> killed = await client.commands.kill(started.id)
        """
        async with self._client.deaths_told(ref):
            return await self._client.call(calls.detach(ref, cmd, options))

    async def list(self, ref: str) -> Sequence[ExecView]:
        """Give the commands of a sandbox, oldest first; it is not woken.

        >>> started = await client.commands.detach("web", ["true"])
        >>> started.id in [each.id for each in await client.commands.list("web")]
        True
        """
        return await self._client.every(
            lambda cursor: self._client.call(calls.execs_page(ref, cursor=cursor, limit=MAX_LIST_LIMIT))
        )

    async def get(self, exec_id: str) -> ExecView:
        """Give one command.

        >>> started = await client.commands.detach("web", ["true"])
        >>> (await client.commands.get(started.id)).cmd
        ['true']
        """
        return await self._client.call(calls.get_exec(exec_id))

    @contextlib.asynccontextmanager
    async def logs(self, exec_id: str, *, after: int = 0, follow: bool = True) -> AsyncIterator[AsyncRunning]:
        """Read a command's output after a cursor, to its end or, without ``follow``, to where it is now.

        >>> started = await client.commands.detach("web", ["echo", "building"])
        >>> async with client.commands.logs(started.id) as running:
        ...     [output.data async for output in running]
        ...     running.exit_code
        [b'building\\n']
        0
        """
        running = AsyncRunning(self._client, self._transport, "", linger_s=calls.LINGER_S, attach=False, after=after)
        try:
            await running.open(calls.output(exec_id, after=after, follow=follow), follow=follow)
            yield running
        finally:
            await running.close()

    async def feed(self, exec_id: str, data: str | bytes = b"", *, eof: bool = False) -> None:
        """Give a command that was started with ``keep_stdin`` more input, or the end of it.

        >>> started = await client.commands.detach("web", ["cat"], keep_stdin=True)
        >>> await client.commands.feed(started.id, "more", eof=True)
        >>> async with client.commands.logs(started.id) as running:
        ...     b"".join([output.data async for output in running])
        b'more'
        """
        await self._client.call(calls.feed(exec_id, data, eof=eof))

    async def kill(self, exec_id: str, signal: str | int = "KILL") -> ExecView:
        """Send a signal to a command's process group.

        >>> started = await client.commands.detach("web", ["sleep", "1000"])
        >>> killed = await client.commands.kill(started.id, "TERM")
        >>> async with client.commands.logs(started.id) as running:
        ...     [output.data async for output in running], running.exit_code
        ([], 143)
        """
        return await self._client.call(calls.kill(exec_id, signal))

    async def forget(self, exec_id: str) -> None:
        """Forget a command that has ended, and its output.

        >>> started = await client.commands.detach("web", ["true"])
        >>> async with client.commands.logs(started.id) as running:
        ...     [output async for output in running]
        []
        >>> await client.commands.forget(started.id)
        """
        await self._client.call(calls.delete_exec(exec_id))
