"""What commands give: whole results and pieces of streams; and the reader that makes pieces of a stream's lines."""

from __future__ import annotations

import base64
from dataclasses import dataclass

import msgspec

from hearth.api.problems import error_from
from hearth.api.schemas import ErrorEvent, Event, ExecResult, ExitEvent, GapEvent, RunningEvent, StdoutEvent, Stream
from hearth.sdk.http1 import ConnectionLost


class CommandFailed(Exception):
    """A command ended with another status than 0. It is the command's failure, not hearth's, so no HearthError."""

    def __init__(self, result: Result) -> None:
        self.result = result
        super().__init__(f"exit code {result.exit_code}: {result.stderr[-500:].strip()}")


@dataclass(frozen=True, kw_only=True)
class Output:
    """Some bytes that a command wrote."""

    stream: Stream
    data: bytes


@dataclass(frozen=True, kw_only=True)
class Result:
    """A finished command. ``truncated`` says that it wrote more than the daemon keeps (8 MiB each)."""

    exit_code: int
    stdout_bytes: bytes
    stderr_bytes: bytes
    truncated: bool = False

    @property
    def stdout(self) -> str:
        """The output as text; what is not UTF-8 shows as U+FFFD.

        >>> Result(exit_code=0, stdout_bytes=b"caf\\xc3\\xa9", stderr_bytes=b"").stdout
        'café'
        """
        return self.stdout_bytes.decode("utf-8", "replace")

    @property
    def stderr(self) -> str:
        """The error output as text; what is not UTF-8 shows as U+FFFD.

        >>> Result(exit_code=1, stdout_bytes=b"", stderr_bytes=b"no such file").stderr
        'no such file'
        """
        return self.stderr_bytes.decode("utf-8", "replace")

    def check(self) -> Result:
        """Give the result itself when the command succeeded.

        Raises:
            CommandFailed: it did not.

        >>> Result(exit_code=0, stdout_bytes=b"fine", stderr_bytes=b"").check().stdout
        'fine'
        >>> Result(exit_code=2, stdout_bytes=b"", stderr_bytes=b"no such file").check()
        Traceback (most recent call last):
        hearth.sdk.results.CommandFailed: exit code 2: no such file
        """
        if self.exit_code != 0:
            raise CommandFailed(self)
        return self


def result_of(answer: ExecResult) -> Result:
    """Make bytes again of a buffered answer."""
    return Result(
        exit_code=answer.exit_code,
        stdout_bytes=_bytes(answer.stdout, answer.encoding),
        stderr_bytes=_bytes(answer.stderr, answer.encoding),
        truncated=answer.truncated,
    )


class ExecReader:
    """Reads the lines of a stream, however they are cut; ``exit_code`` is set once the command has ended.

    ``cursor`` is behind what it has given; ``lost_bytes`` of the output were gone before they could be read. ``paused``
    tells that this was all so far.
    """

    def __init__(self, cursor: int = 0) -> None:
        self.exit_code: int | None = None
        self.cursor = cursor
        self.lost_bytes = 0
        self.paused = False
        self._rest = b""
        self._decoder: msgspec.json.Decoder[Event] = msgspec.json.Decoder(Event)

    def feed(self, data: bytes) -> list[Output]:
        """Give the outputs that are complete now.

        Raises:
            HearthError: the stream ended in an error.
            ConnectionLost: a line is not of this protocol.
        """
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [output for line in lines if (output := self._read(line))]

    def restart(self) -> None:
        """Go on with another stream of the same command, from ``cursor`` on: half a line of the last is void."""
        self._rest = b""

    def finish(self) -> int:
        """Give the exit code at the end of the stream.

        Raises:
            ConnectionLost: the stream ended before the command did.
        """
        if self.exit_code is None:
            raise ConnectionLost(answered=True)
        return self.exit_code

    def _read(self, line: bytes) -> Output | None:
        try:
            event = self._decoder.decode(line)
        except msgspec.DecodeError as error:
            raise ConnectionLost(answered=True) from error
        if isinstance(event, ErrorEvent):
            raise error_from(event)
        if isinstance(event, ExitEvent):
            self.exit_code = event.exit_code
            return None
        if isinstance(event, RunningEvent):
            self.paused = True
            return None
        if isinstance(event, GapEvent):
            self.lost_bytes += event.cursor - self.cursor
            self.cursor = event.cursor
            return None
        stream: Stream = "stdout" if isinstance(event, StdoutEvent) else "stderr"
        output = Output(stream=stream, data=_bytes(event.data, event.encoding))
        self.cursor += len(output.data)
        return output


def _bytes(text: str, encoding: str) -> bytes:
    return base64.b64decode(text) if encoding == "base64" else text.encode()
