# Made of async_sessions.py by 'make twins': change that.
"""Sessions of a sandbox for the blocking client: terminals and piped ones, which outlive their connections."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Unpack

from hearth.api.session_schemas import SessionView
from hearth.errors import NotFound
from hearth.sdk import session_calls
from hearth.sdk.session import Session
from hearth.sdk.session_calls import PipedOptions, TerminalOptions
from hearth.sdk.transport import Transport

if TYPE_CHECKING:
    from hearth.sdk.client import Client


class Sessions:
    """The sessions of one sandbox. Who leaves one detaches: it goes on, and can be come back to by its id."""

    def __init__(self, client: Client, transport: Transport, ref: str) -> None:
        self._client = client
        self._transport = transport
        self._ref = ref

    def list(self) -> Sequence[SessionView]:
        """Give the sessions that run, and those that ended just now.

        >>> with sandbox.sessions.start(["cat"]) as session:
        ...     session.session_id in [each.session_id for each in sandbox.sessions.list()]
        ...     session.kill()
        True
        """
        with self._client.deaths_told(self._ref):
            return self._client.call(session_calls.listing(self._ref)).items

    def get(self, session_id: str) -> SessionView:
        """Give one session.

        Raises:
            NotFound: there is none of this id.

        >>> with sandbox.sessions.start(["cat"]) as session:
        ...     sandbox.sessions.get(session.session_id).argv
        ...     session.kill()
        'cat'
        """
        for each in self.list():
            if each.session_id == session_id:
                return each
        raise NotFound("no such session", details=session_id[:80], resolution="list them: it may have ended")

    def kill(self, session_id: str) -> None:
        """Kill a session's process group.

        >>> with sandbox.sessions.start(["sleep", "1000"]) as session:
        ...     sandbox.sessions.kill(session.session_id)
        ...     [data for data in session], session.exit_code
        ([], 137)
        """
        with self._client.deaths_told(self._ref):
            self._client.call(session_calls.kill(self._ref, session_id))

    @contextlib.contextmanager
    def terminal(
        self, *, linger_s: float = session_calls.LINGER_S, **options: Unpack[TerminalOptions]
    ) -> Iterator[Session]:
        """Start a terminal: a login shell, or ``cmd``.

        >>> with sandbox.sessions.terminal(cmd=["stty", "size"], rows=5, cols=80) as terminal:
        ...     b"".join([data for data in terminal])
        b'5 80\\r\\n'
        """
        again = partial(session_calls.terminal, self._ref)
        session = self._session(session_calls.new_terminal(self._ref, options), again, linger_s)
        with self._entered(session, None):
            yield session

    @contextlib.contextmanager
    def start(
        self, cmd: Sequence[str], *, linger_s: float = session_calls.LINGER_S, **options: Unpack[PipedOptions]
    ) -> Iterator[Session]:
        """Start a command over pipes; its stderr comes with its stdout.

        >>> with sandbox.sessions.start(["cat"]) as session:
        ...     session.send("there and back")
        ...     session.end_input()
        ...     b"".join([data for data in session]), session.exit_code
        (b'there and back', 0)
        """
        again = partial(session_calls.piped, self._ref)
        session = self._session(session_calls.piped(self._ref), again, linger_s)
        with self._entered(session, session_calls.start(cmd, options)):
            yield session

    @contextlib.contextmanager
    def attach(
        self, session_id: str, *, if_detached: bool = False, linger_s: float = session_calls.LINGER_S
    ) -> Iterator[Session]:
        """Come back to a session: what it put out lately comes first. Whoever is attached is sent away.

        Raises:
            NotFound: there is none of this id.
            Conflict: somebody is attached, and ``if_detached`` was asked for.

        >>> with sandbox.sessions.start(["cat"]) as session:
        ...     session.send("still here\\n")
        >>> with sandbox.sessions.attach(session.session_id) as again:
        ...     again.end_input()
        ...     b"".join([data for data in again])
        b'still here\\n'
        """
        is_terminal = self.get(session_id).tty
        again = partial(session_calls.terminal if is_terminal else session_calls.piped, self._ref)
        more: dict[str, Any] = {"if_detached": True} if if_detached else {}
        session = self._session(again(session=session_id, **more), again, linger_s)
        with self._entered(session, None):
            yield session

    def _session(self, request: Any, again: Any, linger_s: float) -> Session:
        return Session(self._client, self._transport, self._ref, request, again, linger_s=linger_s)

    @contextlib.contextmanager
    def _entered(self, session: Session, first: str | None) -> Iterator[None]:
        with self._client.deaths_told(self._ref):
            session.open(first)
        try:
            yield
        finally:
            session.detach()
