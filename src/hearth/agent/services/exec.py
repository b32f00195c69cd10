"""EXEC_REQ: decides which kind of run a request is, and carries out the detached one."""

from __future__ import annotations

import os
from collections.abc import Callable

from hearth.agent.connection import Connection
from hearth.agent.kept_table import KeptTable
from hearth.agent.output_file import open_output
from hearth.agent.reaper import Reaper
from hearth.agent.refusal import Refused
from hearth.agent.services.piped import PipedRun
from hearth.agent.services.sessions import SessionService
from hearth.agent.spawn import spawn
from hearth.agent.state import Agent
from hearth.wire.frames import FrameType
from hearth.wire.messages import ExecRequest, ProcessStarted, decode


class ExecService:
    """Starts commands."""

    def __init__(self, agent: Agent, sessions: SessionService, kept: KeptTable) -> None:
        self._agent = agent
        self._sessions = sessions
        self._kept = kept
        self._reaper = Reaper(agent)

    def handlers(self) -> dict[int, Callable[[Connection, bytes], None]]:
        """Give the requests this service answers."""
        return {FrameType.EXEC_REQ: self.execute}

    def execute(self, connection: Connection, payload: bytes) -> None:
        """Run, start or attach, in the protocol's order of precedence."""
        request = decode(ExecRequest, payload)
        if request.session_id is not None:
            self._sessions.attach(connection, request)
        elif request.keep is not None:
            self._kept.serve(connection, request)
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
        output = open_output(path, command.account) if request.output_file else os.dup(self._agent.doors.null)
        try:
            pid = spawn(command, self._agent.doors.null, output, output, session=True)
        finally:
            os.close(output)
        self._reaper.adopt(pid, request.timeout_sec)
        connection.send_message(FrameType.STDOUT, ProcessStarted(pid=pid, output_file=path))
        connection.send_exit(0)
