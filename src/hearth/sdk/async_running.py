"""A command's output as it comes, over as many connections as it takes."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from hearth.api.limits import EXEC_ID_HEADER
from hearth.errors import HearthError, Unavailable
from hearth.sdk import calls
from hearth.sdk.async_transport import AsyncIncoming, AsyncTransport
from hearth.sdk.call import read_problem
from hearth.sdk.died import FIRST_PAUSE_S, LAST_PAUSE_S
from hearth.sdk.http1 import ConnectionLost
from hearth.sdk.results import ExecReader, Output

if TYPE_CHECKING:
    from hearth.sdk.async_client import AsyncClient
    from hearth.sdk.http1 import HttpRequest


class AsyncRunning:
    """A command under way: iterate for its output, then ask for its exit code.

    A connection that is lost is made anew for ``linger_s`` seconds, and the output goes on where it was. ``exec_id`` is
    the command's; ``lost_bytes`` of its output were gone from its log before they could be read.
    """

    def __init__(
        self, client: AsyncClient, transport: AsyncTransport, ref: str, *, linger_s: float, attach: bool, after: int = 0
    ) -> None:
        self.exec_id = ""
        self._client = client
        self._transport = transport
        self._ref = ref
        self._linger_s = linger_s
        self._attach = attach
        self._follows = True
        self._reader = ExecReader(after)
        self._connection = contextlib.AsyncExitStack()
        self._incoming: AsyncIncoming | None = None
        self._lost_s: float | None = None
        self._lost_at = 0

    async def open(self, request: HttpRequest, *, follow: bool = True) -> None:
        """Send a request and take its answer for the output from here on.

        Raises:
            HearthError: what the daemon says is wrong with it.

        >>> from hearth.sdk import calls
        >>> async with client.stream("web", ["echo", "again"]) as running:
        ...     first = [output.data async for output in running]
        ...     await running.open(calls.output(running.exec_id, after=0, follow=False), follow=False)
        ...     first
        [b'again\\n']
        """
        self._follows = follow
        await self._connection.aclose()
        incoming = await self._connection.enter_async_context(self._transport.open(request))
        if incoming.reader.status != 200:
            async with self._client.deaths_told(self._ref):
                raise read_problem(await incoming.whole())
        self.exec_id = incoming.reader.headers.get(EXEC_ID_HEADER.lower(), self.exec_id)
        self._reader.restart()
        self._incoming = incoming

    async def close(self) -> None:
        """Close the connection; a command that lives for us is killed, unless it has ended.

        >>> async with client.stream("web", ["sleep", "1000"]) as running:
        ...     await running.close()
        """
        ended = self._reader.exit_code is not None
        with contextlib.suppress(HearthError):
            await self._connection.aclose()
        if self._attach and self._linger_s and self.exec_id and not ended:
            with contextlib.suppress(HearthError):
                await self._client.commands.kill(self.exec_id)

    async def __aiter__(self) -> AsyncIterator[Output]:
        async with self._client.deaths_told(self._ref):
            while not self._is_over:
                try:
                    assert self._incoming is not None
                    async for data in self._incoming:
                        for output in self._reader.feed(data):
                            yield output
                    if not self._is_over:
                        self._reader.finish()
                except Unavailable as error:
                    await self._come_back(error)

    @property
    def exit_code(self) -> int:
        """0-255, or 128+n when signal n ended it; known once the output has been read to its end.

        >>> async with client.stream("web", ["sh", "-c", "exit 4"]) as running:
        ...     [output async for output in running], running.exit_code
        ([], 4)
        """
        return self._reader.finish()

    @property
    def cursor(self) -> int:
        """The place in the output behind what has been read.

        >>> async with client.stream("web", ["printf", "12345"]) as running:
        ...     [output.data async for output in running], running.cursor
        ([b'12345'], 5)
        """
        return self._reader.cursor

    @property
    def lost_bytes(self) -> int:
        """How much of the output was gone from the log before it could be read.

        >>> async with client.stream("web", ["printf", "12345"]) as running:
        ...     [output.data async for output in running], running.lost_bytes
        ([b'12345'], 0)
        """
        return self._reader.lost_bytes

    @property
    def _is_over(self) -> bool:
        return self._reader.exit_code is not None or (self._reader.paused and not self._follows)

    async def _come_back(self, lost: Unavailable) -> None:
        """Go on with the output on another connection, unless the command itself failed.

        A stream may end in ``unavailable`` because the daemon stops, or because that is how the command ended.
        """
        if not self.exec_id or not self._linger_s:
            raise lost
        if self._lost_s is None or self._lost_at != self.cursor:
            self._lost_s, self._lost_at = time.monotonic(), self.cursor
        deadline_s, pause_s = self._lost_s + self._linger_s, FIRST_PAUSE_S
        while True:
            try:
                if not isinstance(lost, ConnectionLost) and await self._has_failed():
                    raise lost
                request = calls.output(self.exec_id, after=self.cursor, follow=self._follows, attach=self._attach)
                await self.open(request, follow=self._follows)
            except Unavailable as error:
                if error is lost:
                    raise
                if time.monotonic() + pause_s > deadline_s:
                    raise error from lost
            else:
                return
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, LAST_PAUSE_S)

    async def _has_failed(self) -> bool:
        return (await self._client.commands.get(self.exec_id)).state == "failed"
