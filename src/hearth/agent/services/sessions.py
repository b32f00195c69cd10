"""Sessions for clients: create, attach, list, kill. One thread a client moves bytes between it and the session."""

from __future__ import annotations

import select
import signal
import time
from collections.abc import Callable
from contextlib import suppress

from hearth.agent.connection import PROBE_INTERVAL_S, Connection, PeerGone
from hearth.agent.moments import poll_timeout_ms
from hearth.agent.refusal import Refused
from hearth.agent.session import SHOWN_ARGV_CHARS, Attachment, Session
from hearth.agent.session_table import SessionTable
from hearth.wire.frames import MAX_PAYLOAD, Frame, FrameType, WireError, parse_resize, parse_signal
from hearth.wire.messages import ExecKillRequest, ExecRequest, decode, encode_list

_GONE = select.POLLHUP | select.POLLERR | select.POLLNVAL
_LISTED_ARGV_CHARS = (SHOWN_ARGV_CHARS, 512, 64)
"""A character is six bytes of JSON at most, and there are some thousand sessions at most: the last always fits."""
FAREWELL_TIMEOUT_S = 2.0
"""How long a client whose session was taken may keep the rest of its frames waiting."""
_LAST_READS = 128
"""How often a closed client's socket is read, 64 KiB at a time: more than what Linux lets one hold, 6 MiB (tcp(7))."""


class SessionService:
    """Answers what is about sessions."""

    def __init__(self, table: SessionTable) -> None:
        self._table = table

    def handlers(self) -> dict[int, Callable[[Connection, bytes], None]]:
        """Give the requests this service answers."""
        return {FrameType.EXEC_LIST_REQ: self.list, FrameType.EXEC_KILL: self.kill}

    def create(self, connection: Connection, request: ExecRequest) -> None:
        """Start a session and serve its first client."""
        session = self._table.create(request)
        self._serve(connection, session, ExecRequest())

    def attach(self, connection: Connection, request: ExecRequest) -> None:
        """Serve the client of a session that exists."""
        session = self._table.find(request.session_id or "")
        self._serve(connection, session, request)

    def list(self, connection: Connection, _: bytes) -> None:
        """Answer with all sessions; where there are too many for a frame, with less of their command lines."""
        sessions = self._table.list()
        payload = b""
        for argv_chars in _LISTED_ARGV_CHARS:
            payload = encode_list([session.info(argv_chars) for session in sessions])
            if len(payload) <= MAX_PAYLOAD:
                break
        connection.send(FrameType.EXEC_LIST_RESP, payload)

    def kill(self, connection: Connection, payload: bytes) -> None:
        """Kill a session's process group."""
        self._table.find(decode(ExecKillRequest, payload).session_id).signal(signal.SIGKILL)
        connection.send_exit(0)

    def _serve(self, connection: Connection, session: Session, request: ExecRequest) -> None:
        attachment = session.attach(
            if_detached=request.if_detached, max_idle_s=request.max_idle_sec, after=request.after or 0
        )
        if attachment is None:
            raise Refused("session is attached")
        try:
            code = _Client(connection, session, attachment).run()
        finally:
            session.detach(attachment)
        connection.send_exit(code)


class _Client:
    """The loop of one attached client."""

    def __init__(self, connection: Connection, session: Session, attachment: Attachment) -> None:
        self._connection = connection
        self._session = session
        self._attachment = attachment
        self._poll = select.poll()
        self._events = select.POLLIN
        self._peer_ended = False
        self._probe_at: float | None = None
        self._give_up_at: float | None = None
        self._code: int | None = None

    def run(self) -> int:
        """Move bytes until the session's end is told; gives the exit code to tell.

        Raises:
            PeerGone: the client went away, or broke the protocol. What it had sent before has its effect.
        """
        try:
            info = self._session.info(position=self._attachment.cursor)
            self._connection.send_message(FrameType.SESSION_INFO, info)
            return self._move()
        except PeerGone:
            self._take_last_frames()
            raise

    def _move(self) -> int:
        client, wakeup = self._connection.fileno(), self._attachment.wakeup.fileno()
        self._poll.register(client, self._events)
        self._poll.register(wakeup, select.POLLIN)
        self._take_frames()
        while self._code is None or self._connection.backlog:
            for descriptor, event in self._poll.poll(self._timeout_ms()):
                if descriptor == wakeup:
                    self._attachment.wakeup.clear()
                else:
                    self._on_client(event)
            if self._code is None and (self._attachment.stolen or not self._connection.backlog):
                self._forward_output()
            self._adjust(client)
        return self._code

    def _forward_output(self) -> None:
        data, code = self._session.take_output(self._attachment)
        if data:
            self._connection.offer(FrameType.STDOUT, data)
        if code is not None:
            self._code = code
            self._give_up_at = time.monotonic() + FAREWELL_TIMEOUT_S if self._attachment.stolen else None

    def _on_client(self, event: int) -> None:
        if event & _GONE:
            raise PeerGone("client closed")
        if event & select.POLLOUT:
            self._connection.flush()
        if event & select.POLLIN:
            if not self._connection.fill():
                self._peer_ended = True
                if self._connection.is_tcp:
                    self._probe_at = 0.0
            self._take_frames()

    def _take_last_frames(self) -> None:
        """Take what a client that has gone left in the socket, whether the session's queue has room or not."""
        with suppress(WireError):
            for _ in range(_LAST_READS):
                while (frame := self._connection.next_frame()) is not None:
                    self._on_frame(frame)
                if not self._connection.fill_rest():
                    return

    def _take_frames(self) -> None:
        try:
            while self._session.accepts_input() and (frame := self._connection.next_frame()) is not None:
                self._on_frame(frame)
        except WireError as error:
            raise PeerGone(str(error)) from error

    def _on_frame(self, frame: Frame) -> None:
        if frame.type == FrameType.STDIN:
            self._session.write_input(self._attachment, frame.payload)
        elif frame.type == FrameType.STDIN_EOF:
            self._session.end_input(self._attachment)
        elif frame.type == FrameType.RESIZE:
            self._session.resize(self._attachment, *parse_resize(frame.payload))
        elif self._attachment.stolen:
            return
        elif frame.type == FrameType.KILL:
            self._session.signal(signal.SIGTERM)
        elif frame.type == FrameType.SIGNAL:
            self._session.signal(parse_signal(frame.payload))

    def _adjust(self, client: int) -> None:
        """Poll the client for exactly what can be used; a full input queue stops the reading."""
        accepts = self._session.accepts_input()
        if accepts:
            self._take_frames()
        events = select.POLLIN if accepts and not self._peer_ended else 0
        if self._connection.backlog:
            events |= select.POLLOUT
        if events != self._events:
            self._events = events
            self._poll.modify(client, events)

    def _timeout_ms(self) -> float | None:
        now = time.monotonic()
        if self._give_up_at is not None and now >= self._give_up_at:
            raise PeerGone("client does not read")
        if self._probe_at is not None and now >= self._probe_at:
            self._probe_at = now + PROBE_INTERVAL_S
            self._connection.probe()
        return poll_timeout_ms(now, self._give_up_at, self._probe_at)
