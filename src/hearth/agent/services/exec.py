"""EXEC_REQ: decides which kind of run a request is, and carries out the detached one."""

from __future__ import annotations

import os
from collections.abc import Callable

from hearth.agent.accounts import Account
from hearth.agent.connection import Connection
from hearth.agent.reaper import Reaper
from hearth.agent.refusal import Refused
from hearth.agent.services.piped import PipedRun
from hearth.agent.services.sessions import SessionService
from hearth.agent.spawn import StartFailed, spawn
from hearth.agent.state import Agent
from hearth.wire.frames import FrameType
from hearth.wire.messages import ExecRequest, ProcessStarted, decode

_OUTPUT_MODE = 0o644


class ExecService:
    """Starts commands."""

    def __init__(self, agent: Agent, sessions: SessionService) -> None:
        self._agent = agent
        self._sessions = sessions
        self._reaper = Reaper(agent)

    def handlers(self) -> dict[int, Callable[[Connection, bytes], None]]:
        """Give the requests this service answers."""
        return {FrameType.EXEC_REQ: self.execute}

    def execute(self, connection: Connection, payload: bytes) -> None:
        """Run, start or attach, in the protocol's order of precedence."""
        request = decode(ExecRequest, payload)
        if request.session_id is not None:
            self._sessions.attach(connection, request)
        elif not request.argv:
            raise Refused("empty argv")
        elif request.detach:
            self._detach(connection, request)
        elif request.tty or request.session:
            self._sessions.create(connection, request)
        else:
            PipedRun(self._agent, connection, request).run()

    def _detach(self, connection: Connection, request: ExecRequest) -> None:
        command = self._agent.command(request)
        path = os.path.join(command.directory, request.output_file or os.devnull)
        output = self._open_output(path, command.account) if request.output_file else os.dup(self._agent.doors.null)
        try:
            pid = spawn(command, self._agent.doors.null, output, output, session=True)
        finally:
            os.close(output)
        self._reaper.adopt(pid, request.timeout_sec)
        connection.send_message(FrameType.STDOUT, ProcessStarted(pid=pid, output_file=path))
        connection.send_exit(0)

    def _open_output(self, path: str, account: Account | None) -> int:
        try:
            output = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOCTTY, _OUTPUT_MODE)
            if account is not None and os.fstat(output).st_uid != account.uid:
                os.fchown(output, account.uid, account.gid)
        except OSError as error:
            raise StartFailed(f"output file {path}", error.strerror or "failed") from error
        return output
