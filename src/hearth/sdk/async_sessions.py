"""Sessions of a sandbox for the asynchronous client: terminals and piped ones, which outlive their connections."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Unpack

from hearth.api.session_schemas import SessionView
from hearth.errors import NotFound
from hearth.sdk import session_calls
from hearth.sdk.async_session import AsyncSession
from hearth.sdk.async_transport import AsyncTransport
from hearth.sdk.session_calls import PipedOptions, TerminalOptions

if TYPE_CHECKING:
    from hearth.sdk.async_client import AsyncClient


class AsyncSessions:
    """The sessions of one sandbox. Who leaves one detaches: it goes on, and can be come back to by its id."""

    def __init__(self, client: AsyncClient, transport: AsyncTransport, ref: str) -> None:
        self._client = client
        self._transport = transport
        self._ref = ref

    async def list(self) -> Sequence[SessionView]:
        """Give the sessions that run, and those that ended just now.

        >>> async with sandbox.sessions.start(["cat"]) as session:
        ...     session.session_id in [each.session_id for each in await sandbox.sessions.list()]
        ...     await session.kill()
        True
        """
        async with self._client.deaths_told(self._ref):
            return (await self._client.call(session_calls.listing(self._ref))).items

    async def get(self, session_id: str) -> SessionView:
        """Give one session.

        Raises:
            NotFound: there is none of this id.

        >>> async with sandbox.sessions.start(["cat"]) as session:
        ...     (await sandbox.sessions.get(session.session_id)).argv
        ...     await session.kill()
        'cat'
        """
        for each in await self.list():
            if each.session_id == session_id:
                return each
        raise NotFound("no such session", details=session_id[:80], resolution="list them: it may have ended")

    async def kill(self, session_id: str) -> None:
        """Kill a session's process group.

        >>> async with sandbox.sessions.start(["sleep", "1000"]) as session:
        ...     await sandbox.sessions.kill(session.session_id)
        ...     [data async for data in session], session.exit_code
        ([], 137)
        """
        async with self._client.deaths_told(self._ref):
            await self._client.call(session_calls.kill(self._ref, session_id))

    @contextlib.asynccontextmanager
    async def terminal(
        self, *, linger_s: float = session_calls.LINGER_S, **options: Unpack[TerminalOptions]
    ) -> AsyncIterator[AsyncSession]:
        """Start a terminal: a login shell, or ``cmd``.

        >>> async with sandbox.sessions.terminal(cmd=["stty", "size"], rows=5, cols=80) as terminal:
        ...     b"".join([data async for data in terminal])
        b'5 80\\r\\n'
        """
        again = partial(session_calls.terminal, self._ref)
        session = self._session(session_calls.new_terminal(self._ref, options), again, linger_s)
        async with self._entered(session, None):
            yield session

    @contextlib.asynccontextmanager
    async def start(
        self, cmd: Sequence[str], *, linger_s: float = session_calls.LINGER_S, **options: Unpack[PipedOptions]
    ) -> AsyncIterator[AsyncSession]:
        """Start a command over pipes; its stderr comes with its stdout.

        >>> async with sandbox.sessions.start(["cat"]) as session:
        ...     await session.send("there and back")
        ...     await session.end_input()
        ...     b"".join([data async for data in session]), session.exit_code
        (b'there and back', 0)
        """
        again = partial(session_calls.piped, self._ref)
        session = self._session(session_calls.piped(self._ref), again, linger_s)
        async with self._entered(session, session_calls.start(cmd, options)):
            yield session

    @contextlib.asynccontextmanager
    async def attach(
        self, session_id: str, *, if_detached: bool = False, linger_s: float = session_calls.LINGER_S
    ) -> AsyncIterator[AsyncSession]:
        """Come back to a session: what it put out lately comes first. Whoever is attached is sent away.

        Raises:
            NotFound: there is none of this id.
            Conflict: somebody is attached, and ``if_detached`` was asked for.

        >>> async with sandbox.sessions.start(["cat"]) as session:
        ...     await session.send("still here\\n")
        >>> async with sandbox.sessions.attach(session.session_id) as again:
        ...     await again.end_input()
        ...     b"".join([data async for data in again])
        b'still here\\n'
        """
        is_terminal = (await self.get(session_id)).tty
        again = partial(session_calls.terminal if is_terminal else session_calls.piped, self._ref)
        more: dict[str, Any] = {"if_detached": True} if if_detached else {}
        session = self._session(again(session=session_id, **more), again, linger_s)
        async with self._entered(session, None):
            yield session

    def _session(self, request: Any, again: Any, linger_s: float) -> AsyncSession:
        return AsyncSession(self._client, self._transport, self._ref, request, again, linger_s=linger_s)

    @contextlib.asynccontextmanager
    async def _entered(self, session: AsyncSession, first: str | None) -> AsyncIterator[None]:
        async with self._client.deaths_told(self._ref):
            await session.open(first)
        try:
            yield
        finally:
            await session.detach()
