"""One command under way: what is known of it, its log, and the stream it is reached by."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace

import structlog

from hearth.control.exec_index import ExecIndex
from hearth.control.exec_log import ExecLog
from hearth.errors import Cancelled, Conflict, HearthError
from hearth.execs import Exec, ExecFailure, ExecState
from hearth.guest.execution import Output, ProcessStream
from hearth.host.clock import Clock
from hearth.wire.messages import ExecRequest

log = structlog.get_logger(__name__)

KILL = 9


@dataclass(frozen=True, kw_only=True)
class ExecOrder:
    """What is asked for: the command, its input, and what becomes of it without a client. Times in seconds.

    Args:
        detached: nobody waits for it.
        linger_s: how long it goes on without its client before it is killed; 0 kills it at once.
        stdin_open: its input goes on after ``stdin``, by ``Execs.feed``.
        output_file: both outputs go to this file in the sandbox; of detached ones only.
    """

    request: ExecRequest
    stdin: bytes = field(default=b"", repr=False)
    timeout_s: float | None = None
    detached: bool = False
    linger_s: float = 0.0
    stdin_open: bool = False

    @property
    def kept(self) -> bool:
        """Whether it outlives connections."""
        return self.detached or self.linger_s > 0


class Run:
    """See the module. ``exec`` is the command as it stands now."""

    def __init__(self, found: Exec, written: ExecLog, index: ExecIndex, clock: Clock) -> None:
        self.log = written
        self.stream: ProcessStream | None = None
        self._exec = found
        self._index = index
        self._clock = clock
        self._is_forgotten = False
        self.id = found.id
        written.on_closed = self.save_soon

    def save_soon(self) -> None:
        """Have it remembered in a moment."""
        if not self._is_forgotten:
            self._index.save_soon(self.id, self.look)

    async def save(self) -> None:
        """Remember it as it is now, for good. Raises what the store does."""
        if not self._is_forgotten:
            await self._index.save(self.id, self.look)

    def forget(self) -> None:
        """Have it remembered no more: it is over, and its row is about to go."""
        self._is_forgotten = True

    @property
    def exec(self) -> Exec:
        return self.look()

    def look(self) -> Exec:
        """Give it as it stands now."""
        writer = self.log.writer
        return replace(
            self._exec,
            output_bytes=self.log.end,
            log_start=min(writer.start, self.log.stored),
            log_bytes=writer.size_bytes,
        )

    @property
    def is_over(self) -> bool:
        return self._exec.state is not ExecState.RUNNING

    def exited(self, code: int) -> None:
        """Note its end."""
        self._over(state=ExecState.EXITED, exit_code=code)

    def failed(self, error: HearthError) -> None:
        """Note why it did not come to its end."""
        self._over(state=ExecState.FAILED, failure=ExecFailure.of(error))

    def _over(self, **changes: object) -> None:
        if not self.is_over:
            self._exec = replace(self._exec, ended_at=self._clock.now(), stdin_open=False, **changes)  # type: ignore[arg-type]
            self.save_soon()  # and once more when its log is closed: only then its size is known
            self.log.finish()

    async def signal(self, number: int) -> None:
        """Send a signal to its process group.

        Raises:
            Conflict: it is over, or cannot be reached now.
        """
        stream = self._reached()
        await (stream.kill() if number == KILL else stream.signal(number))

    async def feed(self, data: bytes, *, ends: bool) -> None:
        """Give it input.

        Raises:
            Conflict: it takes none, is over, or cannot be reached now.
            GuestFailed: the connection broke.
        """
        stream = self._reached()
        if not self._exec.stdin_open:
            raise Conflict(
                "the command takes no more input",
                details=f"the input of {self._exec.id} has ended",
                resolution="start it with keep_stdin to send input later",
            )
        await stream.write_stdin(data)
        if ends:
            await stream.close_stdin()
            self._exec = replace(self._exec, stdin_open=False)
            self.save_soon()

    def _reached(self) -> ProcessStream:
        if self.is_over:
            raise Conflict(
                "the command has ended", details=f"{self._exec.id} is {self._exec.state}", resolution="start it again"
            )
        if self.stream is None:
            raise Conflict(
                "the command cannot be reached now",
                details=f"the sandbox of {self._exec.id} sleeps or does not answer",
                resolution="start the sandbox and try again",
            )
        return self.stream


class PlainRun(Run):
    """A command that ends with its client: iterate for its output, which goes to its log on the way."""

    def __init__(self, found: Exec, written: ExecLog, index: ExecIndex, clock: Clock) -> None:
        super().__init__(found, written, index, clock)
        self._feeding: asyncio.Task[None] | None = None

    @property
    def exit_code(self) -> int:
        """Known once the iteration has ended; raises GuestFailed before."""
        return self._reached_stream.exit_code

    def __aiter__(self) -> AsyncIterator[Output]:
        return self

    async def __anext__(self) -> Output:
        while self.log.is_full:
            await self.log.change()
        try:
            output = await self._reached_stream.__anext__()
        except StopAsyncIteration:
            self.exited(self.exit_code)
            raise
        self.log.append(output.stream, output.data)
        return output

    @property
    def _reached_stream(self) -> ProcessStream:
        if self.stream is None:
            raise RuntimeError("use it inside its context")
        return self.stream


def client_left() -> Cancelled:
    """Give the error of a command whose client left before its end."""
    return Cancelled(
        "the command was killed: its client left",
        details="the connection it was started on ended before it did",
        resolution="start it with detach or linger_sec to let it go on",
    )
