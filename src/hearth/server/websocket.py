"""A WebSocket (RFC 6455) on the bare connection of a request: messages in and out, pings, and an end with a code.

The frames are those of the ``websockets`` library's core, which does no I/O. docs/decisions/websockets.md tells why.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
from collections.abc import Iterable

from starlette.requests import ClientDisconnect
from starlette.types import Scope, Send
from websockets.exceptions import InvalidState
from websockets.frames import Frame, Opcode
from websockets.protocol import OPEN, SERVER, Protocol
from websockets.utils import accept_key

from hearth.api.limits import MAX_MESSAGE_BYTES, PING_S
from hearth.errors import InvalidInput
from hearth.server.proxy.door import exchange_of
from hearth.server.proxy.headers import head, upgrade_of
from hearth.server.proxy.raw import RawStream

FEED_BYTES = 16_384
"""Parsed in one go: more tiny frames than these hold would keep others waiting."""
MAX_REPLIES_BYTES = 65_536
"""Of answers to pings that wait for a client that does not read; then it is read no further."""
CLOSE_S = 5.0
"""How long a client has to answer a close."""
QUIET_S = 0.5
"""How long one that broke the protocol, and is no longer understood, may say nothing more until it is hung up on."""
VERSION = b"13"
INVALID_TEXT = 1007
_SILENT = logging.Logger("hearth.websocket", logging.CRITICAL + 1)
"""What the library would tell of frames at debug level: tokens would be among it."""
KEY_BYTES = 16


class WebSocket:
    """The server's end. One task receives; any number may send."""

    def __init__(self, raw: RawStream, *, max_bytes: int = MAX_MESSAGE_BYTES) -> None:
        """``max_bytes`` is how long a message may be until ``welcome``."""
        self._raw = raw
        self._protocol = Protocol(SERVER, state=OPEN, max_size=max_bytes, logger=_SILENT)
        self._unparsed = memoryview(b"")
        self._frames: list[Frame] = []
        self._text: bytearray | None = None
        self._replies = bytearray()
        self._writing = asyncio.Lock()
        self._is_broken = False

    def welcome(self) -> None:
        """Take messages of the usual length from now on."""
        self._protocol.max_message_size = MAX_MESSAGE_BYTES

    async def receive(self) -> str | bytes | None:
        """Wait for a message: text, or some bytes of a binary one; None once the client has closed.

        Raises:
            ClientDisconnect: the connection is gone, or the client broke the protocol and was told so.
        """
        while not self._is_broken:
            while self._frames:
                message = self._take(self._frames.pop(0))
                if message is not None:
                    return message
            if self._protocol.close_rcvd is not None:
                return None
            if self._protocol.state is not OPEN:
                raise ClientDisconnect
            await self._more()
        raise BrokenProtocol

    async def send_text(self, data: bytes) -> None:
        """Send a text message. Raises ClientDisconnect when the client is gone, does not read or has closed."""
        async with self._writing:
            self._check_open()
            self._protocol.send_text(data)
            await self._flush()

    async def send_bytes(self, data: bytes) -> None:
        """Send a binary message, or several where it is too long for one. Raises as ``send_text``."""
        async with self._writing:
            for start in range(0, len(data), MAX_MESSAGE_BYTES):
                self._check_open()
                self._protocol.send_binary(data[start : start + MAX_MESSAGE_BYTES])
                await self._flush()

    async def keep_alive(self, ping_s: float = PING_S) -> None:
        """Ping for ever; raises ClientDisconnect, and cuts the connection, when by the next ping nothing has moved."""
        while True:
            # What was there before the ping must be taken first: as long as some of it is, the client is not gone.
            seen, waiting = self._raw.fed_bytes, self._raw.unsent_bytes()
            if not self._raw.is_backed_up:  # else its time is up when it took nothing for long
                async with self._writing:
                    self._check_open()
                    self._protocol.send_ping(b"hearth")
                    await self._flush()
            await asyncio.sleep(ping_s)
            takes = self._raw.is_backed_up or self._raw.unsent_bytes() < waiting
            if self._raw.fed_bytes == seen and not self._raw.is_full and not takes:
                self.cut()
                raise ClientDisconnect

    def cut(self) -> None:
        """End the connection at once, without a word."""
        self._raw.abort()

    async def close(self, code: int, reason: str = "") -> None:
        """Say why it ends, wait a moment for the client's answer, and end the connection; never raises."""
        try:
            async with asyncio.timeout(CLOSE_S):
                async with self._writing:
                    if self._protocol.state is OPEN:
                        self._protocol.send_close(code, reason)
                    await self._flush()
                # An end with bytes unread would reset the connection, and what was sent last would be lost with it.
                while self._protocol.close_rcvd is None:
                    async with asyncio.timeout(QUIET_S if self._is_broken else None):
                        data = await self._raw.read()
                    if not data:
                        break
                    self._protocol.receive_data(data)
                    self._protocol.events_received()
        except (ClientDisconnect, TimeoutError, InvalidState):
            pass
        finally:
            self._raw.close()

    def _take(self, frame: Frame) -> str | bytes | None:
        """Give the message that a frame completes, or the part of a binary one that it holds."""
        if frame.opcode is Opcode.TEXT:
            self._text = bytearray()
        elif frame.opcode is Opcode.BINARY:
            self._text = None
        elif frame.opcode is not Opcode.CONT:
            return None
        if self._text is None:
            return bytes(frame.data) or None
        self._text += frame.data
        if not frame.fin:
            return None
        text, self._text = self._text, None
        try:
            return text.decode()
        except UnicodeDecodeError as error:
            self._protocol.fail(INVALID_TEXT, "text that is not UTF-8")
            self._is_broken = True
            raise BrokenProtocol from error

    async def _more(self) -> None:
        """Parse what has come, a bounded part of it at a time, and answer pings."""
        if not self._unparsed:
            data = await self._raw.read()
            if not data:
                raise ClientDisconnect
            self._unparsed = memoryview(data)
        piece, self._unparsed = self._unparsed[:FEED_BYTES], self._unparsed[FEED_BYTES:]
        # Without a wait in between: what the protocol has to say is nobody else's to send.
        self._protocol.receive_data(bytes(piece))
        self._replies += _joined(self._protocol.data_to_send())
        for event in self._protocol.events_received():
            assert isinstance(event, Frame)
            self._frames.append(event)
        if self._protocol.parser_exc is not None:
            self._is_broken = True
            raise BrokenProtocol
        if self._replies and (not self._raw.is_backed_up or len(self._replies) > MAX_REPLIES_BYTES):
            async with self._writing:
                await self._flush()
        elif self._unparsed:
            await asyncio.sleep(0)

    def _check_open(self) -> None:
        if self._protocol.state is not OPEN:
            raise ClientDisconnect

    async def _flush(self) -> None:
        replies, self._replies = bytes(self._replies), bytearray()
        data = replies + _joined(self._protocol.data_to_send())
        if data:
            await self._raw.write(data)


class BrokenProtocol(ClientDisconnect):
    """The client sent what is no WebSocket; what there is to say about it goes out with ``close``."""


def check_handshake(scope: Scope) -> bytes:
    """Give the key of a WebSocket's handshake.

    Raises:
        InvalidInput: the request is none.
    """
    wanted = upgrade_of(scope["headers"]) if exchange_of(scope).wants_upgrade else None
    if scope["method"] != "GET" or wanted is None or wanted.lower() != b"websocket":
        raise _no_handshake("Upgrade", "it is a GET that changes the protocol to 'websocket'")
    given = {name: value for name, value in scope["headers"] if name.startswith(b"sec-websocket-")}
    if given.get(b"sec-websocket-version") != VERSION:
        raise _no_handshake("Sec-WebSocket-Version", "it must be 13")
    key: bytes = given.get(b"sec-websocket-key", b"").strip()
    try:
        is_key = len(base64.b64decode(key, validate=True)) == KEY_BYTES
    except binascii.Error:
        is_key = False
    if not is_key:
        raise _no_handshake("Sec-WebSocket-Key", "it must be 16 bytes in base64")
    return key


async def upgrade(scope: Scope, send: Send, key: bytes, *, max_bytes: int = MAX_MESSAGE_BYTES) -> WebSocket:
    """Answer a handshake, and give the WebSocket that follows; ``max_bytes`` as for that."""
    fields = [
        (b"connection", b"Upgrade"),
        (b"upgrade", b"websocket"),
        (b"sec-websocket-accept", accept_key(key.decode("ascii")).encode()),
        (b"x-request-id", scope["state"]["request_id"].encode()),
    ]
    told = head(b"HTTP/1.1 101 Switching Protocols", fields)
    await send({"type": "http.response.start", "status": 101, "hearth.head": told})
    return WebSocket(exchange_of(scope).take_over(), max_bytes=max_bytes)


def _joined(writes: Iterable[bytes]) -> bytes:
    return b"".join(writes)


def _no_handshake(field: str, details: str) -> InvalidInput:
    return InvalidInput(
        "this is a WebSocket",
        details=details,
        resolution="use a WebSocket client; docs/terminals.md tells the messages",
        field=field,
    )
