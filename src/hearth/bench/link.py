"""The leanest client of an agent: blocking, one thread, requests encoded beforehand. It times the agent, not itself."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from hearth.bench.row import Skipped
from hearth.bench.samples import SampleFailed
from hearth.wire import frames
from hearth.wire.faults import UNEXPECTED_FRAME
from hearth.wire.frames import Frame, FrameType

TIMEOUT_S = 20.0
RECEIVE_BYTES = 1 << 20


class Link:
    """One connection to an agent in test mode, used as a context manager."""

    def __init__(self, path: Path, request: bytes) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(TIMEOUT_S)
        self._decoder = frames.Decoder()
        try:
            self._socket.connect(str(path))
            self._socket.sendall(request)
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def read(self) -> Frame:
        """Give the next frame.

        Raises:
            SampleFailed: the agent answered ERROR or closed.
            Skipped: it does not know the request.
        """
        while (frame := self._decoder.next()) is None:
            data = self._socket.recv(RECEIVE_BYTES)
            if not data:
                raise SampleFailed("the agent closed early")
            self._decoder.feed(data)
        if frame.type == FrameType.ERROR:
            text = frame.payload.decode("utf-8", "replace")
            if text.startswith(UNEXPECTED_FRAME):
                raise Skipped(f"this agent does not serve it yet ({text})")
            raise SampleFailed(text)
        return frame

    def expect(self, frame_type: FrameType) -> bytes:
        """Give the payload of the next frame, which must be of this type."""
        frame = self.read()
        if frame.type != frame_type:
            raise SampleFailed(f"frame 0x{frame.type:02x} instead of {frame_type.name}")
        return frame.payload

    def until_exit(self) -> Iterator[bytes]:
        """Give the STDOUT payloads up to EXIT 0."""
        while (frame := self.read()).type != FrameType.EXIT:
            if frame.type == FrameType.STDOUT:
                yield frame.payload
        code = frames.parse_exit(frame.payload)
        if code != 0:
            raise SampleFailed(f"exit code {code}")

    def count_raw(self) -> int:
        """Count raw bytes to the end of the stream, those behind the last frame included."""
        total = len(self._decoder.take_rest())
        buffer = bytearray(RECEIVE_BYTES)
        while received := self._socket.recv_into(buffer):
            total += received
        return total
