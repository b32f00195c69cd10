"""Figures for the asynchronous client."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

from hearth.api.stats_schemas import DaemonStats, SandboxStats
from hearth.sdk import stats_calls
from hearth.sdk.call import Call

Value = TypeVar("Value")


class Caller(Protocol):
    """What carries calls out."""

    async def call(self, call: Call[Value]) -> Value: ...


class OfSandbox(Protocol):
    """A sandbox and its client."""

    @property
    def id(self) -> str: ...

    @property
    def client(self) -> Caller: ...


class Figures:
    """What a client tells of use."""

    async def stats(self: Caller, ref: str) -> SandboxStats:
        """Tell what a sandbox uses: CPU time, memory, disk, network; it is not woken.

        >>> (await client.stats("web")).name
        'web'
        """
        return await self.call(stats_calls.stats(ref))

    async def all_stats(self: Caller) -> Sequence[SandboxStats]:
        """Tell what all sandboxes use, oldest first; none is woken.

        >>> "web" in [stats.name for stats in await client.all_stats()]
        True
        """
        page = await self.call(stats_calls.stats_page(None))
        found = [*page.items]
        while page.next_cursor is not None:
            page = await self.call(stats_calls.stats_page(page.next_cursor))
            found += page.items
        return found

    async def daemon(self: Caller) -> DaemonStats:
        """Tell of the daemon at a glance; administrators see the host, too.

        >>> (await client.daemon()).sandboxes.hot > 0
        True
        """
        return await self.call(stats_calls.daemon())


class OwnFigures:
    """What a sandbox tells of its use."""

    async def stats(self: OfSandbox) -> SandboxStats:
        """Tell what it uses: CPU time, memory, disk, network; it is not woken.

        >>> (await sandbox.stats()).heat
        'hot'
        """
        return await self.client.call(stats_calls.stats(self.id))
