"""Bytes of a command's output on their way into JSON: text where they are UTF-8, base64 where they are not, and never a
character cut in two.
"""

from __future__ import annotations

import base64
import codecs

from msgspec import structs

from hearth.api.schemas import Encoding, ExecResult, StderrEvent, StdoutEvent, Stream

OutputEvent = StdoutEvent | StderrEvent


class EventEncoder:
    """Turns the chunks of one stream into events; up to 3 bytes of an unfinished character wait for the next chunk."""

    def __init__(self, stream: Stream) -> None:
        self._event = StdoutEvent if stream == "stdout" else StderrEvent
        self._pending = b""

    def feed(self, data: bytes) -> StdoutEvent | StderrEvent | None:
        """Give the event for a chunk; None when nothing but a part of a character has come yet."""
        data = self._pending + data
        try:
            text, used = codecs.utf_8_decode(data, "strict", False)
        except UnicodeDecodeError:
            self._pending = b""
            return self._binary(data)
        self._pending = data[used:]
        return self._event(data=text) if text else None

    @property
    def waiting_bytes(self) -> int:
        """How many bytes of an unfinished character wait."""
        return len(self._pending)

    def finish(self) -> StdoutEvent | StderrEvent | None:
        """Give what is left when the stream ends in the middle of a character."""
        rest, self._pending = self._pending, b""
        return self._binary(rest) if rest else None

    def _binary(self, data: bytes) -> StdoutEvent | StderrEvent:
        return self._event(data=base64.b64encode(data).decode("ascii"), encoding="base64")


class OutputEncoder:
    """Turns both outputs of a command into events, in their order.

    What has been given is always a beginning of the output, so that its length is a cursor: where the other stream
    comes between the halves of a character, both halves travel as bytes.
    """

    def __init__(self) -> None:
        self._encoders = {"stdout": EventEncoder("stdout"), "stderr": EventEncoder("stderr")}
        self._last: Stream = "stdout"

    def feed(self, stream: Stream, data: bytes, *, end: int | None = None) -> list[OutputEvent]:
        """Give the events that are complete now; ``end`` is the cursor behind ``data`` if they are to tell theirs."""
        events = self.flush(None if end is None else end - len(data)) if stream != self._last else []
        self._last = stream
        encoder = self._encoders[stream]
        if event := encoder.feed(data):
            events.append(event if end is None else structs.replace(event, cursor=end - encoder.waiting_bytes))
        return events

    def flush(self, end: int | None = None) -> list[OutputEvent]:
        """Give what waits for the rest of a character."""
        event = self._encoders[self._last].finish()
        if event is None:
            return []
        return [event if end is None else structs.replace(event, cursor=end)]


class Buffer:
    """Keeps the first ``max_bytes`` of a stream and remembers whether there was more."""

    def __init__(self, max_bytes: int) -> None:
        self.truncated = False
        self._room = max_bytes
        self._chunks: list[bytes] = []

    def add(self, data: bytes) -> None:
        if len(data) > self._room:
            self.truncated = True
            data = data[: self._room]
        self._room -= len(data)
        if data:
            self._chunks.append(data)

    def content(self) -> bytes:
        """Give what was kept, without the beginning of a character that was cut off by the limit."""
        data = b"".join(self._chunks)
        if not self.truncated:
            return data
        try:
            return data[: codecs.utf_8_decode(data, "strict", False)[1]]
        except UnicodeDecodeError:
            return data


def result_of(exit_code: int, stdout: Buffer, stderr: Buffer, exec_id: str = "") -> ExecResult:
    """Give the buffered answer; both outputs travel in one encoding."""
    contents = (stdout.content(), stderr.content())
    encoding: Encoding = "utf-8"
    try:
        texts = [content.decode() for content in contents]
    except UnicodeDecodeError:
        encoding = "base64"
        texts = [base64.b64encode(content).decode("ascii") for content in contents]
    return ExecResult(
        exit_code=exit_code,
        stdout=texts[0],
        stderr=texts[1],
        truncated=stdout.truncated or stderr.truncated,
        encoding=encoding,
        exec_id=exec_id,
    )
