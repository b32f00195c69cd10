"""One command over pipes: a single thread polls its pipes, its end and its client, and never waits for one alone.

What bounds memory: output is read only while the client takes it, input only while the command takes it.
"""

from __future__ import annotations

import os
import select
import time

from hearth.agent.command_input import PIPE_BYTES, CommandInput
from hearth.agent.connection import PROBE_INTERVAL_S, Connection, PeerGone
from hearth.agent.drain import Drain
from hearth.agent.exit_watch import ExitWatch, watch_child
from hearth.agent.moments import poll_timeout_ms
from hearth.agent.pipes import open_pipes
from hearth.agent.spawn import StartFailed, end_group, exit_code, spawn
from hearth.agent.state import Agent
from hearth.wire.frames import Frame, FrameType, parse_signal
from hearth.wire.messages import ExecRequest

_GONE = select.POLLHUP | select.POLLERR | select.POLLNVAL
_READABLE = select.POLLIN | select.POLLHUP | select.POLLERR


class PipedRun:
    """A command, its three pipes and the client that waits for it."""

    def __init__(self, agent: Agent, connection: Connection, request: ExecRequest) -> None:
        self._agent = agent
        self._connection = connection
        self._request = request
        self._poll = select.poll()
        self._outputs: dict[int, FrameType] = {}
        self._polled_input: int | None = None
        self._peer_ended = False
        self._kill_at: float | None = None
        self._probe_at: float | None = None
        self._drain: Drain | None = None
        self._client_events = select.POLLIN

    def run(self) -> None:
        """Run the command to its end, or to the client's.

        Raises:
            StartFailed: it could not be started.
            PeerGone: the client went away; the process group has been killed.
        """
        pid = self._start()
        try:
            watch = watch_child(pid)
        except StartFailed:
            self._close_pipes()
            raise
        self._agent.add_group(pid, is_job=True)
        finished = False
        try:
            self._serve(pid, watch)
            finished = True
        finally:
            if not finished:
                end_group(pid)
            self._agent.remove_group(pid)
            status = watch.collect()
            if finished:
                self._connection.send_exit(exit_code(status))
            self._close_pipes()

    def _start(self) -> int:
        command = self._agent.command(self._request)
        if self._request.timeout_sec is not None:
            self._kill_at = time.monotonic() + self._request.timeout_sec
        child_in, stdin, out, child_out, err, child_err = open_pipes(3)
        self._input = CommandInput(stdin)
        self._outputs = {out: FrameType.STDOUT, err: FrameType.STDERR}
        try:
            return spawn(command, child_in, child_out, child_err)
        except BaseException:
            self._close_pipes()
            raise
        finally:
            os.close(child_in)
            os.close(child_out)
            os.close(child_err)

    def _serve(self, pid: int, watch: ExitWatch) -> None:
        exit_descriptor, client = watch.fileno(), self._connection.fileno()
        self._poll.register(client, select.POLLIN)
        for descriptor in self._outputs:
            self._poll.register(descriptor, select.POLLIN)
        self._poll.register(exit_descriptor, select.POLLIN)  # told last: outputs that ended before are closed by then
        self._take_frames(pid)
        while not self._is_finished():
            self._adjust()
            for descriptor, event in self._poll.poll(self._timeout_ms(pid)):
                if descriptor == exit_descriptor:
                    self._poll.unregister(exit_descriptor)
                    self._note_end()
                elif descriptor == client:
                    self._on_client(pid, event)
                elif descriptor in self._outputs:
                    if not self._connection.backlog:
                        self._read_output(descriptor, event)
                elif descriptor == self._polled_input:
                    self._input.write()
                    self._take_frames(pid)

    def _is_finished(self) -> bool:
        """The command has ended, and what it wrote has been taken by the client; others may hold its pipes a while."""
        return self._drain is not None and not self._connection.backlog and self._drain.is_over

    def _timeout_ms(self, pid: int) -> float | None:
        """Do what is due and give the time to the next due thing."""
        now = time.monotonic()
        if self._kill_at is not None and now >= self._kill_at:
            self._kill_at = None
            end_group(pid)
        if self._probe_at is not None and now >= self._probe_at:
            self._probe_at = now + PROBE_INTERVAL_S
            self._connection.probe()
        waits_for_drain = self._drain is not None and not self._connection.backlog
        drained_at = self._drain.look_again_at(now) if self._drain is not None and waits_for_drain else None
        return poll_timeout_ms(now, self._kill_at, self._probe_at, drained_at)

    def _note_end(self) -> None:
        """The command has ended: what its pipes hold now is still its output, what comes later is somebody else's."""
        self._drain = Drain(list(self._outputs))
        self._input.close()

    def _on_client(self, pid: int, event: int) -> None:
        if event & _GONE:
            raise PeerGone("client closed")
        if event & select.POLLOUT:
            self._connection.flush()
        if event & select.POLLIN:
            if not self._connection.fill():
                self._peer_ended = self._input.ended = True
                if self._connection.is_tcp:
                    self._probe_at = 0.0
            self._take_frames(pid)

    def _take_frames(self, pid: int) -> None:
        self._input.take_frames(self._connection, lambda frame: self._on_frame(pid, frame))

    def _on_frame(self, pid: int, frame: Frame) -> None:
        if frame.type == FrameType.STDIN:
            self._input.add(frame.payload)
        elif frame.type == FrameType.STDIN_EOF:
            self._input.ended = True
        elif frame.type == FrameType.KILL:
            end_group(pid)
        elif frame.type == FrameType.SIGNAL:
            end_group(pid, parse_signal(frame.payload))

    def _read_output(self, descriptor: int, event: int) -> None:
        data = os.read(descriptor, PIPE_BYTES) if event & select.POLLIN else b""  # hung up, and nothing left in it
        if not data:
            self._poll.unregister(descriptor)
            self._outputs.pop(descriptor)
            if self._drain is not None:
                self._drain.closed(descriptor)
            os.close(descriptor)
            return
        if self._drain is not None:
            self._drain.took(descriptor, len(data))
        self._agent.touch()
        self._connection.offer(self._outputs[descriptor], data)

    def _adjust(self) -> None:
        """Poll for exactly what can be used now."""
        backlog = self._connection.backlog
        events = select.POLLOUT if backlog else 0
        if not self._peer_ended and not self._input.is_full:
            events |= select.POLLIN
        if events != self._client_events:
            was_backlog = bool(self._client_events & select.POLLOUT)
            self._client_events = events
            self._poll.modify(self._connection.fileno(), events)
            if backlog != was_backlog:
                for descriptor in self._outputs:
                    if backlog:
                        self._poll.unregister(descriptor)
                    else:
                        self._poll.register(descriptor, select.POLLIN)
        if (pipe := self._input.waiting_pipe) != self._polled_input:
            if self._polled_input is not None:
                self._poll.unregister(self._polled_input)
            if pipe is not None:
                self._poll.register(pipe, select.POLLOUT)
            self._polled_input = pipe

    def _close_pipes(self) -> None:
        self._input.close()
        for descriptor in self._outputs:
            os.close(descriptor)
        self._outputs.clear()
