"""The client's end of a WebSocket (RFC 6455), without I/O: messages become bytes, bytes become messages.

The frames are those of the ``websockets`` library's core; the handshake is an HTTP request like any other.
"""

from __future__ import annotations

import base64
import logging
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from websockets.exceptions import InvalidState
from websockets.frames import Opcode
from websockets.protocol import CLIENT, OPEN, Protocol
from websockets.utils import accept_key

from hearth.api.limits import MAX_MESSAGE_BYTES
from hearth.sdk.http1 import ConnectionLost

_SILENT = logging.Logger("hearth.frames", logging.CRITICAL + 1)
"""The library would tell of frames at debug level: what is typed would be among it."""
NO_CODE = 1005
NORMAL = 1000


@dataclass(frozen=True, kw_only=True)
class Closed:
    """The server closed, with this code."""

    code: int


Message = str | bytes | Closed


def new_key() -> str:
    """Give a key for a handshake."""
    return base64.b64encode(os.urandom(16)).decode("ascii")


def is_answer_to(key: str, headers: dict[str, str]) -> bool:
    """Tell whether the server understood a handshake."""
    return headers.get("sec-websocket-accept") == accept_key(key)


class Peer:
    """Reads frames and makes them. What it has to say by itself (pongs, the answer to a close) is ``take``n."""

    def __init__(self) -> None:
        self._protocol = Protocol(CLIENT, state=OPEN, max_size=MAX_MESSAGE_BYTES, logger=_SILENT)
        self._text: list[bytes] | None = None
        self._answers = b""
        self._using = threading.Lock()  # one thread may read while another writes

    def feed(self, data: bytes) -> list[Message]:
        """Give the messages that are whole now; of a binary one each part. No bytes are the end.

        Raises:
            ConnectionLost: what came is no WebSocket, or it ended without a close.
        """
        with self._using:
            if data:
                self._protocol.receive_data(data)
            else:
                self._protocol.receive_eof()
            frames = self._protocol.events_received()
            # What the library has to say to that is sent by whoever sends next.
            self._answers += b"".join(self._protocol.data_to_send())
        found: list[Message] = []
        for frame in frames:
            opcode = getattr(frame, "opcode", None)
            content = getattr(frame, "data", b"")
            if opcode is Opcode.CLOSE:
                closed = self._protocol.close_rcvd
                found.append(Closed(code=NO_CODE if closed is None else closed.code))
            elif opcode is Opcode.BINARY or (opcode is Opcode.CONT and self._text is None):
                found.append(bytes(content))
            elif opcode in (Opcode.TEXT, Opcode.CONT):
                self._text = [*(self._text or []), bytes(content)]
                if getattr(frame, "fin", True):
                    found.append(b"".join(self._text).decode("utf-8", "replace"))
                    self._text = None
        if self._protocol.parser_exc is not None and not any(isinstance(each, Closed) for each in found):
            raise ConnectionLost(answered=True) from self._protocol.parser_exc
        return found

    def text(self, message: str) -> bytes:
        """Make a text message; raises as ``binary``."""
        with self._using:
            return self._made(self._protocol.send_text, message.encode())

    def binary(self, message: bytes) -> bytes:
        """Make a binary message.

        Raises:
            ConnectionLost: the server has closed already.
        """
        with self._using:
            return self._made(self._protocol.send_binary, message)

    def close(self) -> bytes:
        """Say that we leave."""
        with self._using:
            return self._made(self._protocol.send_close, NORMAL) if self._protocol.state is OPEN else b""

    @property
    def has_answers(self) -> bool:
        """Whether there is something to say that nobody asked for: pongs, the answer to a close."""
        return bool(self._answers)

    def take(self) -> bytes:
        """Give that."""
        with self._using:
            answers, self._answers = self._answers, b""
        return answers

    def _made(self, make: Callable[[Any], None], given: object) -> bytes:
        try:
            make(given)
        except InvalidState as error:
            raise ConnectionLost(answered=True) from error
        answers, self._answers = self._answers, b""
        return answers + b"".join(self._protocol.data_to_send())
