"""One session: a process that outlives its client, the end of its output in a ring, and at most one client attached.

Output is addressed by position in the whole stream. A client has a cursor into the ring, so that replay and live
output are one thing, and nothing can be lost, doubled or reordered around an attach. One thread, the pump, reads the
process's output; while a client is attached it never overwrites what that client has not taken.
"""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Callable

from hearth.agent.drain import Drain
from hearth.agent.exit_watch import ExitWatch
from hearth.agent.moments import poll_timeout_ms
from hearth.agent.ring import Ring
from hearth.agent.spawn import end_group, exit_code
from hearth.agent.state import Agent
from hearth.agent.terminal import resize
from hearth.agent.wakeup import Wakeup
from hearth.wire.messages import ExecRequest, SessionInfo
from hearth.wire.runtime_typing import NamedTuple

INIT_SESSION = "init"
"""The sandbox's init script; it does not count towards the limit and is never forgotten."""
SCROLLBACK_BYTES = 65_536
INPUT_AHEAD_BYTES = 1024 * 1024
SHOWN_ARGV_CHARS = 16_384
"""More of a command line is not told: whatever it is written as in JSON, a session's description fits a frame."""
_END_OF_FILE = b"\x04"
_REST_S = 0.05
"""How long a terminal that nobody has open is not read: ``poll`` would report its hang-up all the time."""


class Process(NamedTuple):
    """A session's process: its pid, its end, and our ends of its streams, which are one for a terminal."""

    pid: int
    watch: ExitWatch
    input: int
    output: int


class Supervision:
    """What is known of a session that is started again and checked: the init script's."""

    def __init__(self) -> None:
        self.restarts = 0
        self.healthy: bool | None = None


class Attachment:
    """A client's place in a session's output. Its fields belong to the session's lock."""

    def __init__(self) -> None:
        self.wakeup = Wakeup()
        self.cursor = 0
        self.stolen = False


class Session:
    """See the module. Every public method may be called by any thread."""

    def __init__(
        self,
        agent: Agent,
        session_id: str,
        request: ExecRequest,
        process: Process,
        on_end: Callable[[int], None] | None = None,
    ) -> None:
        self.id = session_id
        self.pid = process.pid
        self.ended_at: float | None = None
        self.supervision: Supervision | None = None
        self._agent = agent
        self._argv = " ".join(request.argv)[:SHOWN_ARGV_CHARS]
        self._tty = request.tty
        self._created_at = int(time.time())
        self._watch = process.watch
        self._input: int | None = process.input
        self._output: int | None = process.output
        self._on_end = on_end
        self._max_idle_s: float = request.max_idle_sec
        self._kill_at = None if request.timeout_sec is None else time.monotonic() + request.timeout_sec
        self._idle_at: float | None = None
        self._lock = threading.Lock()
        self._ring = Ring(SCROLLBACK_BYTES)
        self._pending = bytearray()
        self._input_ends = False
        self._attachment: Attachment | None = None
        self._awaits_client = session_id != INIT_SESSION  # whoever created it has not attached yet and misses nothing
        self._exit_code: int | None = None
        self._drain: Drain | None = None
        self._output_rests_until = 0.0
        self._wakeup: Wakeup | None = Wakeup()
        os.set_blocking(process.input, False)
        os.set_blocking(process.output, False)

    def start(self) -> None:
        """Begin to pump; call it once."""
        threading.Thread(target=self._pump, name=f"session-{self.id}", daemon=True).start()

    def info(self, argv_chars: int = SHOWN_ARGV_CHARS, *, position: int | None = None) -> SessionInfo:
        """Describe the session as it is now, with so much of its command line; ``position`` is told as it is."""
        supervision = self.supervision
        with self._lock:
            return SessionInfo(
                session_id=self.id,
                argv=self._argv[:argv_chars],
                tty=self._tty,
                running=self._exit_code is None,
                exit_code=self._exit_code,
                attached=self._attachment is not None,
                created_at=self._created_at,
                restarts=None if supervision is None else supervision.restarts,
                healthy=None if supervision is None else supervision.healthy,
                position=position,
            )

    def attach(self, *, if_detached: bool, max_idle_s: float, after: int = 0) -> Attachment | None:
        """Become the session's client, in place of any other; None when ``if_detached`` and there is one.

        Its output begins at position ``after``, or as near to it as what is kept allows.
        """
        attachment = Attachment()
        with self._lock:
            if self._attachment is not None:
                if if_detached:
                    attachment.wakeup.close()
                    return None
                self._attachment.stolen = True
                self._attachment.wakeup.set()
            attachment.cursor = min(max(self._ring.start, after), self._ring.end)
            attachment.wakeup.set()
            self._attachment = attachment
            self._awaits_client = False
            self._idle_at = None
            self._max_idle_s = max_idle_s or self._max_idle_s
            self._wake_pump()
        return attachment

    def detach(self, attachment: Attachment) -> None:
        """Stop being the client, which arms the idle timer; one whose place was taken changes nothing."""
        with self._lock:
            if self._attachment is attachment:
                self._attachment = None
                if self._max_idle_s:
                    self._idle_at = time.monotonic() + self._max_idle_s
                self._wake_pump()
            attachment.wakeup.close()

    def take_output(self, attachment: Attachment) -> tuple[bytes, int | None]:
        """Give the output the client has not had, and the exit code once that was all of it; a stolen client gets 0."""
        with self._lock:
            if attachment.stolen:
                return b"", 0
            data = self._ring.read_from(attachment.cursor)
            attachment.cursor = self._ring.end
            if data:
                self._wake_pump()
            return data, self._exit_code

    def write_input(self, attachment: Attachment, data: bytes) -> bool:
        """Queue input; False when the client should be read no further for now. A stolen client's is dropped."""
        with self._lock:
            if attachment.stolen or self._input is None or self._input_ends:
                return True
            self._agent.touch()
            self._pending += data
            self._write_pending()
            return len(self._pending) < INPUT_AHEAD_BYTES

    def accepts_input(self) -> bool:
        """True when the queue has room again."""
        with self._lock:
            return len(self._pending) < INPUT_AHEAD_BYTES

    def end_input(self, attachment: Attachment) -> None:
        """End the input: close the pipe, or type the terminal's end-of-file."""
        with self._lock:
            if attachment.stolen or self._input is None:
                return
            if self._tty:
                self._pending += _END_OF_FILE
            else:
                self._input_ends = True
            self._write_pending()

    def resize(self, attachment: Attachment, rows: int, columns: int) -> None:
        """Set the terminal's size; a session without one ignores it."""
        with self._lock:
            if self._tty and not attachment.stolen and self._output is not None:
                resize(self._output, rows, columns)

    def signal(self, number: int) -> None:
        """Send a signal to the process group, if it still runs."""
        with self._lock:
            if self._exit_code is None:
                end_group(self.pid, number)

    def release_output(self) -> None:
        """Forget the output of a session that has ended, unless somebody is reading it; the exit code stays."""
        with self._lock:
            if self._exit_code is not None and self._attachment is None:
                self._ring.release()

    def _pump(self) -> None:
        wakeup = self._wakeup
        assert wakeup is not None
        exited = self._watch.fileno()
        while True:
            poller = select.poll()
            poller.register(wakeup, select.POLLIN)
            with self._lock:
                if self._drain is None:
                    poller.register(exited, select.POLLIN)
                elif self._is_complete():
                    break
                timeout_ms = self._timeout_ms()
                self._register_streams(poller)
            for descriptor, event in poller.poll(timeout_ms):
                with self._lock:
                    if descriptor == wakeup.fileno():
                        wakeup.clear()
                    elif descriptor == exited:
                        self._drain = Drain([] if self._output is None else [self._output])
                        self._output_rests_until = 0.0
                    elif descriptor == self._output and event & ~select.POLLOUT:
                        self._read_output()
                    if descriptor == self._input and event & select.POLLOUT:
                        self._write_pending()
        self._finish(wakeup)

    def _is_complete(self) -> bool:
        return self._drain is not None and self._drain.is_over

    def _register_streams(self, poller: select.poll) -> None:
        events: dict[int, int] = {}
        if self._output is not None and self._room() and time.monotonic() >= self._output_rests_until:
            events[self._output] = select.POLLIN
        if self._input is not None and self._pending:
            events[self._input] = events.get(self._input, 0) | select.POLLOUT
        for descriptor, mask in events.items():
            poller.register(descriptor, mask)

    def _room(self) -> int:
        """How much may be read without overwriting what the client has not taken."""
        if self._attachment is None:
            return SCROLLBACK_BYTES - (self._ring.end if self._awaits_client else 0)
        return SCROLLBACK_BYTES - (self._ring.end - self._attachment.cursor)

    def _timeout_ms(self) -> float | None:
        now = time.monotonic()
        if self._kill_at is not None and now >= self._kill_at:
            self._kill_at = None
            end_group(self.pid)
        if self._idle_at is not None and now >= self._idle_at:
            self._idle_at = None
            end_group(self.pid)
        drained_at = self._drain.look_again_at(now) if self._drain is not None else None
        rests_until = self._output_rests_until if self._output_rests_until > now else None
        return poll_timeout_ms(now, self._kill_at, self._idle_at, drained_at, rests_until)

    def _read_output(self) -> None:
        room = self._room()
        if self._output is None or not room:  # a client attached since poll, and everything is its replay
            return
        try:
            data = os.read(self._output, room)
        except BlockingIOError:
            return
        except OSError:  # EIO: the last process has closed the terminal
            data = b""
        if not data:
            self._output_ended(self._output)
            return
        if self._drain is not None:
            self._drain.took(self._output, len(data))
        self._agent.touch()
        self._ring.write(data)
        if self._attachment is not None:
            self._attachment.wakeup.set()

    def _output_ended(self, output: int) -> None:
        """Nobody holds the other end now. A terminal may be opened again, and closing ours would hang up its owner."""
        if self._drain is not None:
            self._drain.closed(output)
            self._close_streams()
        elif self._tty:
            self._output_rests_until = time.monotonic() + _REST_S
        else:
            self._close_streams()

    def _write_pending(self) -> None:
        """Write queued input as far as the process takes it; the rest is left to the pump."""
        if self._input is None:
            return
        try:
            while self._pending:
                written = os.write(self._input, self._pending)
                del self._pending[:written]
        except BlockingIOError:
            self._wake_pump()
            return
        except OSError:  # nobody reads it any more
            self._pending.clear()
            if not self._tty:
                self._close_input()
        if self._attachment is not None:
            self._attachment.wakeup.set()
        if self._input_ends:
            self._close_input()

    def _finish(self, wakeup: Wakeup) -> None:
        self._agent.remove_group(self.pid)
        with self._lock:
            self._close_streams()
            self._close_input()
            self._exit_code = exit_code(self._watch.collect())
            self.ended_at = time.monotonic()
            self._wakeup = None
            wakeup.close()
            if self._attachment is not None:
                self._attachment.wakeup.set()
            code = self._exit_code
        if self._on_end is not None:
            self._on_end(code)

    def _close_streams(self) -> None:
        if self._output is None:
            return
        if self._tty:
            self._input = None
        os.close(self._output)
        self._output = None

    def _close_input(self) -> None:
        if self._input is not None:
            self._pending.clear()
            os.close(self._input)
            self._input = None

    def _wake_pump(self) -> None:
        if self._wakeup is not None:
            self._wakeup.set()
