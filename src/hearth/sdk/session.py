# Made of async_session.py by 'make twins': change that.
"""One session of a sandbox, a terminal or a piped one, over as many connections as it takes."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from hearth.api.problems import error_from
from hearth.api.schemas import ErrorEvent, ExitEvent
from hearth.api.session_schemas import SessionOpened
from hearth.errors import Conflict, HearthError, Unavailable
from hearth.sdk import session_calls
from hearth.sdk.aside import Lock
from hearth.sdk.died import FIRST_PAUSE_S, LAST_PAUSE_S
from hearth.sdk.frames import Closed, Message
from hearth.sdk.http1 import ConnectionLost, HttpRequest
from hearth.sdk.transport import Transport
from hearth.sdk.websocket import WebSocket

if TYPE_CHECKING:
    from hearth.sdk.client import Client

Again = Callable[..., HttpRequest]
"""Makes the request that comes back, of ``session`` and ``after``."""


class Session:
    """A client of a session: iterate for its output, ``send`` its input; one may read while another sends.

    A connection that is lost is made anew for ``linger_s`` seconds, and the output goes on where it was. ``lost_bytes``
    of it were more than the sandbox kept meanwhile. What was on its way in when a connection broke may be lost.
    """

    def __init__(
        self,
        client: Client,
        transport: Transport,
        ref: str,
        request: HttpRequest,
        again: Again,
        *,
        linger_s: float,
    ) -> None:
        self.exit_code: int | None = None
        self.lost_bytes = 0
        self._client = client
        self._transport = transport
        self._ref = ref
        self._request = request
        self._again = again
        self._linger_s = linger_s
        self._socket: WebSocket | None = None
        self._live: WebSocket | None = None
        self._noting = threading.Lock()
        self._opened: SessionOpened | None = None
        self._pending: deque[bytes] = deque()
        self._received = 0
        self._failure: HearthError | None = None
        self._size: str | None = None
        self._coming_back = Lock()

    def open(self, first: str | None = None) -> None:
        """Connect, and say ``first``; the sessions of a sandbox do so.

        Raises:
            HearthError: what the daemon says is wrong with it.

        >>> with sandbox.sessions.start(["sh", "-c", "exit 3"]) as session:
        ...     session.detach()
        ...     session.session_id != ""
        True
        """
        socket = WebSocket.connect(self._transport, self._request)
        try:
            if first is not None:
                socket.send(first)
            self._greet(socket)
        except BaseException:
            socket.close()
            raise
        self._socket = socket

    @property
    def session_id(self) -> str:
        """Its id, to come back to it by.

        >>> with sandbox.sessions.start(["true"]) as session:
        ...     session.session_id == sandbox.sessions.get(session.session_id).session_id
        True
        """
        return "" if self._opened is None else self._opened.session_id

    @property
    def tty(self) -> bool:
        """Whether it is a terminal.

        >>> with sandbox.sessions.start(["true"]) as session:
        ...     session.tty
        False
        """
        return self._opened is not None and self._opened.tty

    @property
    def position(self) -> int:
        """The place in its output behind what has been read, counted in bytes from its start.

        >>> with sandbox.sessions.start(["printf", "12345"]) as session:
        ...     [data for data in session], session.position
        ([b'12345'], 5)
        """
        return self._received - sum(map(len, self._pending))

    def __iter__(self) -> Iterator[bytes]:
        with self._client.deaths_told(self._ref):
            while True:
                if self._pending:
                    yield self._pending.popleft()
                    continue
                socket = self._socket
                if socket is None or self.exit_code is not None:
                    return
                try:
                    if self._failure is not None:
                        raise self._failure
                    self._note(socket, socket.receive())
                except Unavailable as error:
                    self._come_back(socket, error)

    def send(self, data: str | bytes) -> None:
        """Give it input.

        Raises:
            Conflict: it has ended, or was left.

        >>> with sandbox.sessions.start(["cat"]) as session:
        ...     session.send(b"\\x00\\xff")
        ...     session.end_input()
        ...     b"".join([data for data in session])
        b'\\x00\\xff'
        """
        content = data.encode() if isinstance(data, str) else bytes(data)
        for start in range(0, len(content), session_calls.INPUT_BYTES):
            self._say(content[start : start + session_calls.INPUT_BYTES])

    def resize(self, rows: int, cols: int) -> None:
        """Tell a terminal its size, in characters.

        >>> with sandbox.shell(cmd=["sh", "-c", "read line; stty size"]) as shell:
        ...     shell.resize(50, 132)
        ...     shell.send("now\\n")
        ...     b"50 132" in b"".join([data for data in shell])
        True
        """
        self._size = session_calls.resize(rows, cols)
        self._say(self._size)

    def signal(self, signal: str | int) -> None:
        """Send a signal to its process group.

        >>> with sandbox.sessions.start(["sleep", "1000"]) as session:
        ...     session.signal("TERM")
        ...     [data for data in session], session.exit_code
        ([], 143)
        """
        self._say(session_calls.signal(signal))

    def end_input(self) -> None:
        """Tell it that no more input comes: a pipe is closed, a terminal gets what control-D is at one.

        >>> with sandbox.sessions.start(["wc", "-c"]) as session:
        ...     session.end_input()
        ...     b"".join([data for data in session]).strip()
        b'0'
        """
        self._say(session_calls.end_input())

    def kill(self) -> None:
        """Kill its process group; the output still ends with an exit code.

        >>> with sandbox.sessions.start(["sleep", "1000"]) as session:
        ...     session.kill()
        """
        self._client.sessions(self._ref).kill(self.session_id)

    def detach(self) -> None:
        """Leave it; it goes on.

        >>> with sandbox.sessions.start(["sleep", "1000"]) as session:
        ...     session.detach()
        >>> sandbox.sessions.get(session.session_id).running
        True
        >>> sandbox.sessions.kill(session.session_id)
        """
        socket, self._socket = self._socket, None
        if socket is not None:
            socket.close()

    def _say(self, message: str | bytes) -> None:
        while True:
            socket = self._socket
            if socket is None or self.exit_code is not None:
                raise Conflict(
                    "the session is over",
                    details=self.session_id if self.exit_code is None else f"exit code {self.exit_code}",
                    resolution="start another, or attach to it again",
                )
            try:
                socket.send(message)
            except ConnectionLost as error:
                self._come_back(socket, error)
            else:
                return

    def _note(self, socket: WebSocket, messages: Sequence[Message]) -> None:
        """Keep what is output, and see how the session or the connection ended.

        What came by a connection that was given up is void: another gives it again.
        """
        with self._noting:
            if self._live is socket:
                self._keep(messages)

    def _keep(self, messages: Sequence[Message]) -> None:
        for message in messages:
            if isinstance(message, bytes):
                self._pending.append(message)
                self._received += len(message)
                continue
            told = session_calls.told(message) if isinstance(message, str) else None
            if isinstance(told, ExitEvent):
                self.exit_code = told.exit_code
            elif isinstance(told, ErrorEvent):
                self._failure = error_from(told)
            elif isinstance(message, Closed):
                self._failure = self._failure or ConnectionLost(answered=True)

    def _greet(self, socket: WebSocket) -> None:
        """Wait for the first message; what came with it is kept."""
        first, *more = socket.receive()
        told = session_calls.told(first) if isinstance(first, str) else None
        if isinstance(told, ErrorEvent):
            raise error_from(told)
        if not isinstance(told, SessionOpened):
            raise ConnectionLost(answered=True)
        begins = told.position or 0
        if self._opened is not None:
            self.lost_bytes += max(0, begins - self._received)
        self._opened, self._received, self._failure = told, begins, None
        self._live = socket
        self._note(socket, more)

    def _come_back(self, socket: WebSocket, lost: Unavailable) -> None:
        with self._coming_back:
            if self._socket is not socket:
                return  # somebody else has come back, or left
            with self._noting:
                self._live = None
            socket.close()
            if self.exit_code is None:
                self._socket = self._reconnected(lost)

    def _reconnected(self, lost: Unavailable) -> WebSocket:
        deadline_s, pause_s = time.monotonic() + self._linger_s, FIRST_PAUSE_S
        while True:
            socket = None
            try:
                request = self._again(session=self.session_id, after=self.position)
                socket = WebSocket.connect(self._transport, request)
                self._greet(socket)
                if self._size is not None:
                    socket.send(self._size)
                return socket
            except Unavailable as error:
                if socket is not None:
                    socket.close()
                if time.monotonic() + pause_s > deadline_s:
                    self._socket = None
                    raise error from lost
            except BaseException:
                self._socket = None
                if socket is not None:
                    socket.close()
                raise
            time.sleep(pause_s)
            pause_s = min(pause_s * 2, LAST_PAUSE_S)
