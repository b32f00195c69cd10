# Made of async_websocket.py by 'make twins': change that.
"""A WebSocket for the blocking client: connected, read, written, closed."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace

from hearth.errors import Unavailable
from hearth.sdk.aside import Lock, try_acquire
from hearth.sdk.call import read_problem
from hearth.sdk.frames import Message, Peer, is_answer_to, new_key
from hearth.sdk.http1 import SWITCHED, ConnectionLost, HttpRequest
from hearth.sdk.transport import Duplex, Transport

SILENCE_S = 90.0
"""A daemon that is there pings every 30 s."""
SEND_S = 3600.0
"""Longest time in which it takes no input: a process may be slow to read. A reader notices sooner what is gone."""
GOODBYE_S = 1.0


class WebSocket:
    """One connection; ``connect`` makes it."""

    def __init__(self, stack: contextlib.ExitStack, duplex: Duplex) -> None:
        self._stack = stack
        self._duplex = duplex
        self._peer = Peer()
        self._reading = Lock()
        self._writing = Lock()

    @classmethod
    def connect(cls, transport: Transport, request: HttpRequest) -> WebSocket:
        """Send a request that is to become a WebSocket.

        Raises:
            HearthError: the daemon refuses it.
        """
        key = new_key()
        with contextlib.ExitStack() as stack:
            incoming = stack.enter_context(transport.open(replace(request, websocket_key=key)))
            if incoming.reader.status != SWITCHED:
                raise read_problem(incoming.whole())
            if not is_answer_to(key, incoming.reader.headers):
                raise Unavailable(
                    "what answered is not a hearth daemon",
                    details="it knows no WebSocket",
                    resolution="check HEARTH_URL",
                )
            return cls(stack.pop_all(), incoming.duplex())

    def receive(self) -> Sequence[Message]:
        """Wait for messages.

        Raises:
            ConnectionLost: the connection is gone.
        """
        while True:
            with self._reading:
                data = self._duplex.receive(SILENCE_S)
            messages = self._peer.feed(data)
            self._answer()
            if messages:
                return messages

    def send(self, message: str | bytes) -> None:
        """Send a message.

        Raises:
            ConnectionLost: the connection is gone.
        """
        with self._writing:
            data = self._peer.text(message) if isinstance(message, str) else self._peer.binary(message)
            self._duplex.send(data, SEND_S)

    def close(self) -> None:
        """Say goodbye, and close the connection."""
        with contextlib.suppress(ConnectionLost):
            if try_acquire(self._writing):
                try:
                    self._duplex.send(self._peer.close(), GOODBYE_S)
                finally:
                    self._writing.release()
        self._duplex.cut()
        # Who still waits for it wakes now, and is waited for: the number of a closed descriptor is soon another's.
        with self._reading, self._writing:
            self._stack.close()

    def _answer(self) -> None:
        """Say what is to be said unasked, unless somebody is sending, behind which it goes.

        A reader never waits for a connection that is full: the other side may be waiting for it to read.
        """
        if not (self._peer.has_answers and self._duplex.may_send and try_acquire(self._writing)):
            return
        try:
            self._duplex.send(self._peer.take(), GOODBYE_S)
        except ConnectionLost:
            pass  # what came before the end still counts
        finally:
            self._writing.release()
