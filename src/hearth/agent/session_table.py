"""All sessions of the agent: ids, the limit, and the exited ones that are kept a while for their exit code."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

from hearth.agent.exit_watch import watch_child
from hearth.agent.pipes import close_all, open_pipes
from hearth.agent.refusal import Refused
from hearth.agent.session import INIT_SESSION as INIT_SESSION
from hearth.agent.session import Process, Session
from hearth.agent.spawn import StartFailed, end_group, spawn
from hearth.agent.state import Agent
from hearth.agent.terminal import open_terminal
from hearth.wire.messages import ExecRequest

MAX_SESSIONS = 20
_MAX_OUTPUTS_KEPT = 20
"""So many ended sessions keep their scrollback too."""
_MAX_KEPT = 1000


class SessionTable:
    """Creates and finds sessions. Exited ones do not count towards the limit."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._lock = threading.Lock()
        self._sessions: dict[str, Session] = {}
        self._starting = 0
        self._last_number = 0

    def create(
        self, request: ExecRequest, session_id: str | None = None, on_end: Callable[[int], None] | None = None
    ) -> Session:
        """Start a process in a new session; ``session_id`` names one that is reserved, ``on_end`` gets the exit code.

        Raises:
            Refused: there are too many.
            StartFailed: it could not be started.
        """
        with self._lock:
            self._forget_old()
            running = sum(s.ended_at is None for s in self._sessions.values() if s.id != INIT_SESSION)
            if session_id is None and running + self._starting >= MAX_SESSIONS:
                raise Refused("session limit exceeded")
            self._starting += 1
            if session_id is None:
                self._last_number += 1
                session_id = f"s{self._last_number}"
        try:
            session = self._adopt(session_id, request, self._start(request), on_end)
        except BaseException:
            with self._lock:
                self._starting -= 1
            raise
        with self._lock:
            self._starting -= 1
            self._sessions[session_id] = session
        return session

    def find(self, session_id: str) -> Session:
        """Give a session.

        Raises:
            Refused: there is none of that id, or it ended too long ago.
        """
        with self._lock:
            self._forget_old()
            session = self._sessions.get(session_id)
        if session is None:
            raise Refused("session not found")
        return session

    def has(self, session_id: str) -> bool:
        """True when there is a session of that id."""
        with self._lock:
            return session_id in self._sessions

    def list(self) -> list[Session]:
        """Give all sessions in the order of their creation."""
        with self._lock:
            self._forget_old()
            return list(self._sessions.values())

    def _forget_old(self) -> None:
        now = time.monotonic()
        ended = sorted(
            (s.ended_at, s.id) for s in self._sessions.values() if s.ended_at is not None and s.id != INIT_SESSION
        )
        for index, (ended_at, session_id) in enumerate(reversed(ended)):
            if now - ended_at > self._agent.patience.exited_kept_s or index >= _MAX_KEPT:
                del self._sessions[session_id]
            elif index >= _MAX_OUTPUTS_KEPT:
                self._sessions[session_id].release_output()

    def _adopt(
        self, session_id: str, request: ExecRequest, process: Process, on_end: Callable[[int], None] | None
    ) -> Session:
        try:
            session = Session(self._agent, session_id, request, process, on_end)
        except OSError:
            end_group(process.pid)
            process.watch.collect()
            close_all(sorted({process.input, process.output}))
            raise
        self._agent.add_group(process.pid, is_job=False)
        session.start()
        return session

    def _start(self, request: ExecRequest) -> Process:
        command = self._agent.command(request)
        if request.tty:
            input_, child = self._terminal(request, command.account.uid if command.account else None)
            output, ours, childs = input_, [input_], [child]
            triple = (child, child, child)
        else:
            child_in, input_, output, child_out = open_pipes(2)
            ours, childs = [input_, output], [child_in, child_out]
            triple = (child_in, child_out, child_out)
        try:
            pid = spawn(command, *triple, session=True, terminal=request.tty)
            process = Process(pid, watch_child(pid), input_, output)
        except BaseException:
            close_all(ours)
            raise
        finally:
            close_all(childs)
        return process

    def _terminal(self, request: ExecRequest, owner: int | None) -> tuple[int, int]:
        try:
            master, slave = open_terminal(self._agent.doors.terminals, request.rows, request.cols)
        except OSError as error:
            raise StartFailed("terminal", error.strerror or "failed") from error
        if owner is not None:
            os.fchown(slave, owner, -1)
        return master, slave
