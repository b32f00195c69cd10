"""A process in the guest as the host sees it: output to iterate over, input to write, an exit code at the end."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Literal, NamedTuple, Self

from hearth.errors import GuestFailed, InvalidInput
from hearth.guest.connection import Connection
from hearth.guest.connector import Connector
from hearth.guest.faults import protocol_broken
from hearth.guest.measuring import count_exit
from hearth.metrics.instruments import EXECS_STARTED
from hearth.wire import frames
from hearth.wire.frames import FrameType, ProtocolError

STDIN_CHUNK = 65_536
"""Bytes of input in one frame."""
HIGHEST_EXIT_CODE = 255


class Output(NamedTuple):
    """A piece of output, as it came; a character may be split over two pieces."""

    stream: Literal["stdout", "stderr"]
    data: bytes


@dataclass(frozen=True, kw_only=True)
class ExecResult:
    """What a finished command left. ``truncated`` tells that output was dropped for being too much."""

    exit_code: int
    stdout: bytes
    stderr: bytes
    truncated: bool


class ProcessStream:
    """The live end of a process: iterate for its output, then read ``exit_code``.

    Use it as ``async with``; entering sends the request, leaving closes the connection.
    """

    def __init__(self, connector: Connector, request: bytes) -> None:
        self._connector = connector
        self._request = request
        self._connection: Connection | None = None
        self._exit_code: int | None = None

    async def __aenter__(self) -> Self:
        self._connection = await self._connector.open(self._request)
        EXECS_STARTED.inc()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.leave()

    def leave(self) -> None:
        """Close the connection, as leaving the context does; twice is fine."""
        self._open_connection.close()

    def __aiter__(self) -> AsyncIterator[Output]:
        return self

    async def __anext__(self) -> Output:
        """Wait for the next piece of output.

        Raises:
            StartFailed: the command could not be started.
            GuestFailed: the guest broke off or broke the protocol.
        """
        if self._exit_code is not None:
            raise StopAsyncIteration
        frame = await self._open_connection.expect(FrameType.STDOUT, FrameType.STDERR, FrameType.EXIT)
        if frame.type == FrameType.STDOUT:
            return Output("stdout", frame.payload)
        if frame.type == FrameType.STDERR:
            return Output("stderr", frame.payload)
        self._exit_code = count_exit(self._read_exit(frame.payload))
        raise StopAsyncIteration

    def _read_exit(self, payload: bytes) -> int:
        return read_exit(payload)

    @property
    def exit_code(self) -> int:
        """The exit code: 0-255, or 128+n when signal n ended the process. There once the iteration has ended.

        Raises:
            GuestFailed: the process has not been seen to end.
        """
        if self._exit_code is None:
            raise GuestFailed("the process has not ended")
        return self._exit_code

    async def wait(self) -> int:
        """Drop what output is left and give the exit code.

        Raises:
            StartFailed, GuestFailed: as for the iteration.
        """
        async for _ in self:
            pass
        return self.exit_code

    async def write_stdin(self, data: bytes) -> None:
        """Send input; waits while the process does not take it.

        Raises:
            GuestFailed: the connection is gone.
        """
        view = memoryview(data)
        for start in range(0, len(view), STDIN_CHUNK):
            await self._send(frames.encode(FrameType.STDIN, view[start : start + STDIN_CHUNK]))

    async def close_stdin(self) -> None:
        """End the process's input.

        Raises:
            GuestFailed: the connection is gone.
        """
        await self._send(frames.encode(FrameType.STDIN_EOF))

    async def kill(self) -> None:
        """Kill the process group (SIGKILL; SIGTERM in a session). The iteration goes on to the exit code.

        Raises:
            GuestFailed: the connection is gone.
        """
        await self._send(frames.encode(FrameType.KILL))

    async def signal(self, number: int) -> None:
        """Send a signal (1 to 64) to the process group.

        Raises:
            InvalidInput: no such signal.
            GuestFailed: the connection is gone.
        """
        try:
            frame = frames.encode_signal(number)
        except ProtocolError as error:
            raise InvalidInput("no such signal", details=str(error), field="signal") from error
        await self._send(frame)

    async def resize(self, rows: int, columns: int) -> None:
        """Tell the terminal's size in characters.

        Raises:
            InvalidInput: a size is outside 0 to 65535.
            GuestFailed: the connection is gone.
        """
        try:
            frame = frames.encode_resize(rows, columns)
        except ProtocolError as error:
            raise InvalidInput("invalid terminal size", details=str(error), field="rows") from error
        await self._send(frame)

    @property
    def _open_connection(self) -> Connection:
        if self._connection is None:
            raise RuntimeError("use the stream as 'async with'")
        return self._connection

    async def _send(self, frame: bytes) -> None:
        await self._open_connection.send(frame)


class Execution(ProcessStream):
    """A command over pipes. Leaving the context before its end kills its process group, as cancellation does."""


class Collector:
    """Keeps the first ``limit`` bytes of all output together and counts nothing else; memory stays bounded."""

    def __init__(self, limit: int) -> None:
        self._left = limit
        self._pieces: dict[str, list[bytes]] = {"stdout": [], "stderr": []}
        self._truncated = False

    def add(self, output: Output) -> None:
        """Keep a piece, or the part of it that still fits."""
        data = output.data
        if len(data) > self._left:
            self._truncated = True
            data = data[: self._left]
        if data:
            self._left -= len(data)
            self._pieces[output.stream].append(data)

    def result(self, exit_code: int) -> ExecResult:
        """Give everything kept."""
        stdout, stderr = (b"".join(self._pieces[name]) for name in ("stdout", "stderr"))
        return ExecResult(exit_code=exit_code, stdout=stdout, stderr=stderr, truncated=self._truncated)


def read_exit(payload: bytes) -> int:
    """Read the exit code out of an EXIT payload.

    Raises:
        GuestFailed: it is none, or one that no process can have.
    """
    try:
        code = frames.parse_exit(payload)
    except ProtocolError as error:
        raise protocol_broken(error) from error
    if not 0 <= code <= HIGHEST_EXIT_CODE:
        raise GuestFailed("the guest broke the protocol", details=f"{code} is no exit code")
    return code
