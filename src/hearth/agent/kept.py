"""One kept command: it outlives its clients, and loses none of its output while it has none.

A thread of its own polls the command's pipes, its end and the client there is, if any. Output stays in a window until
the host says to have it; when that is full the command stands still. A client is a connection whose own thread waits
here meanwhile; the next one takes its place.
"""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from hearth.agent.command_input import PIPE_BYTES, CommandInput
from hearth.agent.connection import Connection, PeerGone
from hearth.agent.drain import Drain
from hearth.agent.exit_watch import ExitWatch
from hearth.agent.moments import poll_timeout_ms
from hearth.agent.spawn import end_group, exit_code
from hearth.agent.state import Agent
from hearth.agent.unacked import Unacked
from hearth.agent.wakeup import Wakeup
from hearth.wire.frames import Frame, FrameType, parse_ack, parse_signal
from hearth.wire.messages import KeptInfo
from hearth.wire.runtime_typing import NamedTuple

TIMED_OUT = -1
"""The exit code of a command that its time limit has ended; no process has it."""
_LAST_READS = 128
"""How often a client's socket is read when it goes, 64 KiB at a time."""
_GONE = select.POLLHUP | select.POLLERR | select.POLLNVAL


class Pipes(NamedTuple):
    """A command just started, and our ends of its streams; ``outputs`` is empty when they go to a file."""

    pid: int
    watch: ExitWatch
    stdin: int
    outputs: dict[int, FrameType]


class _Client:
    """A connection that waits while it is served; ``gone`` tells that nobody is at its other end."""

    def __init__(self, connection: Connection, after: int) -> None:
        self.connection = connection
        self.after = after
        self.gone = False
        self.done = threading.Event()


class KeptCommand:
    """See the module. ``serve`` and ``abandon`` may be called by any thread, the rest is the command's own."""

    def __init__(
        self, agent: Agent, pipes: Pipes, *, timeout_s: float | None, kept_s: float, on_end: Callable[[], None]
    ) -> None:
        """``kept_s`` is how long it is remembered after its end, ``on_end`` is called when it is no longer."""
        self._agent = agent
        self._pid = pipes.pid
        self._watch = pipes.watch
        self._input = CommandInput(pipes.stdin)
        self._outputs = dict(pipes.outputs)
        self._kept_s = kept_s
        self._on_end = on_end
        self._kill_at = None if timeout_s is None else time.monotonic() + timeout_s
        self._forget_at: float | None = None
        self._timed_out = self._released = self._discards = self._exit_told = False
        self._input_bytes = 0
        self._unacked = Unacked()
        self._drain: Drain | None = None
        self._exit_code: int | None = None
        self._client: _Client | None = None
        self._lock = threading.Lock()
        self._next: _Client | None = None
        self._abandoned = self._over = False
        self._wakeup = Wakeup()
        for descriptor in pipes.outputs:
            os.set_blocking(descriptor, False)

    @property
    def running(self) -> bool:
        return self._exit_code is None

    def start(self, name: str) -> None:
        """Begin to look after it; call it once."""
        threading.Thread(target=self._work, name=f"kept-{name}", daemon=True).start()

    def serve(self, connection: Connection, after: int) -> bool:
        """Be its client, in place of any other, until the connection ends; False when it is no longer kept.

        Raises:
            PeerGone: the client went away, or broke the protocol.
        """
        client = _Client(connection, after)
        with self._lock:
            if self._over or self._abandoned:
                return False
            if self._next is not None:
                self._next.done.set()
            self._next = client
            self._wakeup.set()
        client.done.wait()
        if client.gone:
            raise PeerGone("client closed")
        return True

    def abandon(self) -> None:
        """Kill it and forget it: nobody will come for it any more."""
        with self._lock:
            if not self._over:
                self._abandoned = True
                self._wakeup.set()

    def _work(self) -> None:
        while not self._is_over():
            for descriptor, event in self._poller().poll(self._timeout_ms()):
                if descriptor == self._wakeup.fileno():
                    self._wakeup.clear()
                    self._change_client()
                elif descriptor == self._input.waiting_pipe:
                    self._take_input()
                elif descriptor in self._outputs:
                    self._read_output(descriptor, event)
                elif self._client is not None and descriptor == self._client.connection.fileno():
                    self._on_client(self._client, event)
                elif self._drain is None and descriptor == self._watch.fileno():  # else it is a client's, just replaced
                    self._note_end()
            self._finish()
            if self._client is not None:
                self._forward(self._client)

    def _is_over(self) -> bool:
        if self.running or not (self._released or self._forget_at is None or time.monotonic() >= self._forget_at):
            return False
        with self._lock:
            if self._next is not None and not self._released:
                return False
            self._over = True
            clients = (self._client, self._next)
            self._wakeup.close()
        for client in clients:
            if client is not None:
                client.done.set()
        self._on_end()
        return True

    def _poller(self) -> select.poll:
        poller = select.poll()
        poller.register(self._wakeup, select.POLLIN)
        if self._drain is None:
            poller.register(self._watch.fileno(), select.POLLIN)
        if self._discards or self._unacked.room:
            for descriptor in self._outputs:
                poller.register(descriptor, select.POLLIN)
        if (pipe := self._input.waiting_pipe) is not None:
            poller.register(pipe, select.POLLOUT)
        if self._client is not None:
            events = 0 if self._input.is_full else select.POLLIN
            if self._client.connection.backlog:
                events |= select.POLLOUT
            poller.register(self._client.connection.fileno(), events)
        return poller

    def _timeout_ms(self) -> float | None:
        now = time.monotonic()
        if self._kill_at is not None and now >= self._kill_at:
            self._kill_at = None
            if self._drain is None:
                self._timed_out = True
                end_group(self._pid)
        drained_at = self._drain.look_again_at(now) if self._drain is not None and self.running else None
        return poll_timeout_ms(now, self._kill_at, drained_at, self._forget_at)

    def _change_client(self) -> None:
        with self._lock:
            client, self._next = self._next, None
            abandoned = self._abandoned
        if abandoned:
            self._released = True
            self._lose_client()
        if client is None:
            return
        if self._client is not None:
            self._take_last_frames(self._client)
            self._client.done.set()
        self._client = client
        self._exit_told = False
        position = self._unacked.rewind(client.after)
        info = KeptInfo(
            position=position,
            running=self.running,
            input_bytes=self._input_bytes,
            input_ended=self._input.ended,
        )
        try:
            client.connection.send_message(FrameType.EXEC_KEPT, info)
            self._take_frames(client)  # which came together with the request
        except PeerGone:
            self._lose_client()

    def _lose_client(self) -> None:
        """Go on without one; a command that is no longer kept ends with its client, as any other does."""
        client, self._client = self._client, None
        if client is not None:
            self._take_last_frames(client)
            client.gone = True
            client.done.set()
        if self._released:
            self._discards = True
            if self._drain is None:
                end_group(self._pid)

    def _on_client(self, client: _Client, event: int) -> None:
        try:
            if event & select.POLLOUT:
                client.connection.flush()
            if event & select.POLLIN:
                stays = client.connection.fill()
                self._take_frames(client)
                if not stays:
                    raise PeerGone("client closed")
            elif event & _GONE:
                raise PeerGone("client closed")
        except PeerGone:
            self._lose_client()

    def _take_frames(self, client: _Client) -> None:
        self._input.take_frames(client.connection, self._on_frame)

    def _take_last_frames(self, client: _Client) -> None:
        """Take what a client that goes left in its socket, as far as its input fits."""
        with suppress(PeerGone):
            for _ in range(_LAST_READS):
                self._take_frames(client)
                if self._input.is_full or not client.connection.fill_rest():
                    return

    def _on_frame(self, frame: Frame) -> None:
        if frame.type == FrameType.OUTPUT_ACK:
            self._unacked.acknowledge(parse_ack(frame.payload))
        elif frame.type == FrameType.STDIN:
            self._input_bytes += len(frame.payload)
            self._input.add(frame.payload)
        elif frame.type == FrameType.STDIN_EOF:
            self._input.ended = True
        elif frame.type == FrameType.RELEASE:
            self._released = True
        elif frame.type in (FrameType.KILL, FrameType.SIGNAL) and self._drain is None:
            end_group(self._pid, *(() if frame.type == FrameType.KILL else (parse_signal(frame.payload),)))

    def _take_input(self) -> None:
        self._input.write()
        if self._client is not None:
            try:
                self._take_frames(self._client)
            except PeerGone:
                self._lose_client()

    def _read_output(self, descriptor: int, event: int) -> None:
        room = PIPE_BYTES if self._discards else min(PIPE_BYTES, self._unacked.room)
        if event & select.POLLIN and not room:
            return
        try:
            data = os.read(descriptor, room) if event & select.POLLIN else b""
        except BlockingIOError:
            return
        if not data:
            self._outputs.pop(descriptor)
            if self._drain is not None:
                self._drain.closed(descriptor)
            os.close(descriptor)
            return
        if self._drain is not None:
            self._drain.took(descriptor, len(data))
        self._agent.touch()
        if not self._discards:
            self._unacked.add(self._outputs[descriptor], data)

    def _note_end(self) -> None:
        self._drain = Drain(list(self._outputs))
        self._input.close()

    def _finish(self) -> None:
        """Collect the command once it has ended and all that it wrote is here."""
        if self._drain is None or not self.running or not self._drain.is_over:
            return
        self._agent.remove_group(self._pid)
        code = exit_code(self._watch.collect())
        for descriptor in self._outputs:
            os.close(descriptor)
        self._outputs.clear()
        self._kill_at = None
        self._forget_at = time.monotonic() + self._kept_s
        self._exit_code = TIMED_OUT if self._timed_out else code

    def _forward(self, client: _Client) -> None:
        try:
            while self._unacked.has_unsent and not client.connection.backlog:
                chunk = self._unacked.next()
                client.connection.offer(chunk.kind, chunk.data)
            if self._exit_code is not None and not self._exit_told and not self._unacked.has_unsent:
                self._exit_told = True
                client.connection.offer_exit(self._exit_code)
        except PeerGone:
            self._lose_client()
