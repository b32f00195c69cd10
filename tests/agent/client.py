"""A small blocking client of the agent, on ``hearth.wire`` alone: what it receives is kept frame by frame."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from typing import Any, Self, TypeVar

from hearth.wire import frames
from hearth.wire.frames import Frame, FrameType
from hearth.wire.messages import ExecRequest, SessionInfo, decode, encode
from hearth.wire.record import Record

Message = TypeVar("Message")
TIMEOUT_S = 60.0
Address = str | tuple[str, int]


class AgentError(Exception):
    """The agent answered ERROR."""


class Closed(Exception):
    """The agent closed where a frame was expected."""


class Wire:
    """One connection: send frames, read frames."""

    def __init__(self, address: Address, token: str | None = None) -> None:
        self.socket = socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET)
        self.socket.settimeout(TIMEOUT_S)
        try:
            self.socket.connect(address)
        except OSError:
            self.socket.close()
            raise
        self._decoder = frames.Decoder()
        if token is not None:
            self.send(FrameType.AUTH, token.encode())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.socket.close()

    def half_close(self) -> None:
        self.socket.shutdown(socket.SHUT_WR)

    def send(self, frame_type: int, payload: bytes = b"") -> None:
        self.socket.sendall(frames.encode(frame_type, payload))

    def request(self, frame_type: int, message: Record | None = None) -> None:
        self.send(frame_type, b"" if message is None else encode(message))

    def read_or_none(self) -> Frame | None:
        """Read the next frame; None when the agent has closed."""
        while (frame := self._decoder.next()) is None:
            data = self.socket.recv(1 << 20)
            if not data:
                self._decoder.eof()
                return None
            self._decoder.feed(data)
        return frame

    def read(self) -> Frame:
        frame = self.read_or_none()
        if frame is None:
            raise Closed
        if frame.type == FrameType.ERROR:
            raise AgentError(frame.payload.decode())
        return frame

    def expect(self, frame_type: FrameType) -> bytes:
        frame = self.read()
        assert frame.type == frame_type, frame
        return frame.payload

    def frames(self) -> Iterator[Frame]:
        """Read up to and without EXIT."""
        while (frame := self.read()).type != FrameType.EXIT:
            yield frame
        self.exit_code = frames.parse_exit(frame.payload)

    def read_until(self, found: Callable[[bytes], bool]) -> bytes:
        """Collect STDOUT until the bytes so far satisfy ``found``."""
        data = b""
        while not found(data):
            data += self.expect(FrameType.STDOUT)
        return data

    def raw_rest(self) -> bytes:
        """Read raw bytes to the end of the stream."""
        data = self._decoder.take_rest()
        while chunk := self.socket.recv(1 << 20):
            data += chunk
        return data


class Result:
    """What a finished exec gave."""

    def __init__(self, wire: Wire) -> None:
        self.stdout = b""
        self.stderr = b""
        for frame in wire.frames():
            if frame.type == FrameType.STDOUT:
                self.stdout += frame.payload
            elif frame.type == FrameType.STDERR:
                self.stderr += frame.payload
        self.exit_code = wire.exit_code


class Client:
    """Opens connections to one agent and knows the usual exchanges."""

    def __init__(self, address: Address, forward_address: Address, token: str | None = None) -> None:
        self.address = address
        self.forward_address = forward_address
        self.token = token

    def connect(self) -> Wire:
        return Wire(self.address, self.token)

    def start(self, request: ExecRequest) -> Wire:
        """Send an exec request and give the connection."""
        wire = self.connect()
        wire.request(FrameType.EXEC_REQ, request)
        return wire

    def run(self, *argv: str, stdin: bytes = b"", **fields: Any) -> Result:
        """Run a command to its end."""
        request = frames.encode(FrameType.EXEC_REQ, encode(ExecRequest(argv=list(argv), **fields)))
        body = frames.encode(FrameType.STDIN, stdin) if stdin else b""
        with self.connect() as wire:
            # All at once: a command that does not read may have ended before the rest came, and the agent have closed.
            wire.socket.sendall(request + body + frames.encode(FrameType.STDIN_EOF))
            return Result(wire)

    def attach(self, session_id: str, **fields: Any) -> tuple[Wire, SessionInfo]:
        return self._with_info(ExecRequest(session_id=session_id, **fields))

    def session(self, *argv: str, **fields: Any) -> tuple[Wire, SessionInfo]:
        """Start a piped session (``tty=True`` for a terminal) and give its connection and info."""
        return self._with_info(ExecRequest(argv=list(argv), session=not fields.get("tty"), **fields))

    def _with_info(self, request: ExecRequest) -> tuple[Wire, SessionInfo]:
        wire = self.start(request)
        try:
            return wire, decode(SessionInfo, wire.expect(FrameType.SESSION_INFO))
        except BaseException:
            wire.close()
            raise

    def ask(self, frame_type: FrameType, message: Record | None, reply: FrameType) -> Any:
        """Send one request and give the JSON of its one reply."""
        with self.connect() as wire:
            wire.request(frame_type, message)
            return json.loads(wire.expect(reply))
