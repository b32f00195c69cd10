"""All sessions of the agent: ids, the limit, and the exited ones that are kept a while for their exit code."""

from __future__ import annotations

import os
import threading
import time

from hearth.agent.exit_watch import watch_exit
from hearth.agent.pipes import close_all, open_pipes
from hearth.agent.refusal import Refused
from hearth.agent.session import Session
from hearth.agent.spawn import StartFailed, end_group, spawn
from hearth.agent.state import Agent
from hearth.agent.terminal import open_terminal
from hearth.wire.messages import ExecRequest

MAX_SESSIONS = 20
KEPT_S = 30.0
_MAX_KEPT = 20


class SessionTable:
    """Creates and finds sessions. Exited ones do not count towards the limit."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._lock = threading.Lock()
        self._sessions: dict[str, Session] = {}
        self._starting = 0
        self._last_number = 0

    def create(self, request: ExecRequest, session_id: str | None = None) -> Session:
        """Start a process in a new session; ``session_id`` names one that is reserved.

        Raises:
            Refused: there are too many.
            StartFailed: it could not be started.
        """
        with self._lock:
            self._forget_old()
            running = sum(session.ended_at is None for session in self._sessions.values())
            if running + self._starting >= MAX_SESSIONS:
                raise Refused("session limit exceeded")
            self._starting += 1
            if session_id is None:
                self._last_number += 1
                session_id = f"s{self._last_number}"
        try:
            session = self._start(request, session_id)
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

    def list(self) -> list[Session]:
        """Give all sessions in the order of their creation."""
        with self._lock:
            self._forget_old()
            return list(self._sessions.values())

    def _forget_old(self) -> None:
        now = time.monotonic()
        ended = sorted((s.ended_at, s.id) for s in self._sessions.values() if s.ended_at is not None)
        for index, (ended_at, session_id) in enumerate(reversed(ended)):
            if now - ended_at > KEPT_S or index >= _MAX_KEPT:
                del self._sessions[session_id]

    def _start(self, request: ExecRequest, session_id: str) -> Session:
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
            session = self._adopt(request, session_id, pid, input_, output)
        except BaseException:
            close_all(ours)
            raise
        finally:
            close_all(childs)
        self._agent.add_group(pid, is_job=False)
        session.start()
        return session

    def _adopt(self, request: ExecRequest, session_id: str, pid: int, input_: int, output: int) -> Session:
        try:
            return Session(
                self._agent, session_id, request.argv, pid, watch_exit(pid), input_, output,
                tty=request.tty, max_idle_s=request.max_idle_sec, timeout_s=request.timeout_sec,
            )  # fmt: skip
        except OSError as error:
            end_group(pid)
            os.waitpid(pid, 0)
            raise StartFailed("session", error.strerror or "failed") from error

    def _terminal(self, request: ExecRequest, owner: int | None) -> tuple[int, int]:
        try:
            master, slave = open_terminal(self._agent.doors.terminals, request.rows, request.cols)
        except OSError as error:
            raise StartFailed("terminal", error.strerror or "failed") from error
        if owner is not None:
            os.fchown(slave, owner, -1)
        return master, slave
