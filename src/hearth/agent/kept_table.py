"""All kept commands of the agent, by the names their host gave them."""

from __future__ import annotations

import os
import threading

from hearth.agent.connection import Connection
from hearth.agent.exit_watch import watch_child
from hearth.agent.kept import KeptCommand, Pipes
from hearth.agent.output_file import open_output
from hearth.agent.pipes import close_all, open_pipes
from hearth.agent.refusal import Refused, refused
from hearth.agent.spawn import spawn
from hearth.agent.state import Agent
from hearth.wire.faults import Fault
from hearth.wire.frames import FrameType
from hearth.wire.messages import ExecRequest

MAX_RUNNING = 32
"""Fewer than the control connections: a host that follows all of them can still ask for other things."""
MAX_KEPT = 96
_MAX_NAME_CHARS = 64


class KeptTable:
    """Starts kept commands and finds them again."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._lock = threading.Lock()
        self._commands: dict[str, KeptCommand | None] = {}
        self._ends = 0

    def serve(self, connection: Connection, request: ExecRequest) -> None:
        """Serve the client of a command that is kept under the request's name; with arguments it is started if need be.

        Raises:
            Refused: there is none of that name and nothing to start, or there are too many.
            StartFailed: it could not be started.
        """
        name = request.keep or ""
        if not 0 < len(name) <= _MAX_NAME_CHARS:
            raise refused(Fault.INVALID, f"keep is 1 to {_MAX_NAME_CHARS} characters")
        command = self._find(name) or self._create(name, request)
        if not command.serve(connection, request.after or 0):
            raise Refused("session not found")

    def end_all(self) -> None:
        """Kill all of them and forget them, in a machine that has become another's."""
        with self._lock:
            self._ends += 1
            commands = list(self._commands.values())
        for command in commands:
            if command is not None:
                command.abandon()

    def _find(self, name: str) -> KeptCommand | None:
        with self._lock:
            if name not in self._commands:
                return None
            command = self._commands[name]
        if command is None:
            raise refused(Fault.CONFLICT, f"{name} is being started")
        return command

    def _create(self, name: str, request: ExecRequest) -> KeptCommand:
        if not request.argv:
            raise Refused("session not found")
        with self._lock:
            if name in self._commands:
                raise refused(Fault.CONFLICT, f"{name} is being started")
            running = sum(command is None or command.running for command in self._commands.values())
            if running >= MAX_RUNNING or len(self._commands) >= MAX_KEPT:
                raise refused(Fault.BUSY, f"{MAX_RUNNING} commands are kept at a time")
            self._commands[name] = None
            ends = self._ends
        try:
            command = self._start(name, request)
        except BaseException:
            self._forget(name)
            raise
        with self._lock:
            self._commands[name] = command
            is_foreign = ends != self._ends
        command.start(name)
        if is_foreign:  # the machine became another's while it started
            command.abandon()
        return command

    def _start(self, name: str, request: ExecRequest) -> KeptCommand:
        pipes = self._spawn(request)
        self._agent.add_group(pipes.pid, is_job=True)
        return KeptCommand(
            self._agent,
            pipes,
            timeout_s=request.timeout_sec,
            kept_s=self._agent.patience.kept_s,
            on_end=lambda: self._forget(name),
        )

    def _spawn(self, request: ExecRequest) -> Pipes:
        command = self._agent.command(request)
        ours: list[int] = []
        theirs: list[int] = []
        try:
            child_in, stdin = open_pipes(1)
            ours, theirs = [stdin], [child_in]
            if request.output_file:
                outputs: dict[int, FrameType] = {}
                theirs.append(open_output(os.path.join(command.directory, request.output_file), command.account))
                triple = (child_in, theirs[1], theirs[1])
            else:
                out, child_out, err, child_err = open_pipes(2)
                ours += [out, err]
                theirs += [child_out, child_err]
                outputs = {out: FrameType.STDOUT, err: FrameType.STDERR}
                triple = (child_in, child_out, child_err)
            pid = spawn(command, *triple)
            return Pipes(pid, watch_child(pid), stdin, outputs)
        except BaseException:
            close_all(ours)
            raise
        finally:
            close_all(theirs)

    def _forget(self, name: str) -> None:
        with self._lock:
            self._commands.pop(name, None)
