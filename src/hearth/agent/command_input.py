"""What a client sends to a command's standard input: kept until the command takes it, and bounded."""

from __future__ import annotations

import os
from collections.abc import Callable

from hearth.agent.connection import Connection, PeerGone
from hearth.wire.frames import Frame, WireError

PIPE_BYTES = 65_536
"""What a pipe holds unless told otherwise (pipe(7)): more cannot go or come at once."""
_AHEAD_BYTES = 1024 * 1024


class CommandInput:
    """The pipe to a command, whose end of it does not block, and what waits to go into it.

    Args:
        descriptor: of the pipe; closed by this.
    """

    def __init__(self, descriptor: int) -> None:
        os.set_blocking(descriptor, False)
        self._pipe: int | None = descriptor
        self._waiting = bytearray()
        self.ended = False
        """Nothing more comes; the pipe is closed once all of it was taken."""

    @property
    def waiting_pipe(self) -> int | None:
        """The descriptor to be polled until the command takes more; None while nothing waits for that."""
        return self._pipe if self._waiting else None

    @property
    def is_full(self) -> bool:
        """Whether so much waits that frames had better stay where they are."""
        return len(self._waiting) >= _AHEAD_BYTES

    def add(self, data: bytes) -> None:
        """Take what is to be written; nothing once it ended or the command has closed its end."""
        if self._pipe is not None and not self.ended:
            self._waiting += data

    def write(self) -> None:
        """Write as much as the command takes, and close the pipe behind the last of it."""
        if self._pipe is None:
            return
        try:
            while self._waiting:
                written = os.write(self._pipe, memoryview(self._waiting)[:PIPE_BYTES])
                del self._waiting[:written]
        except BlockingIOError:
            return
        except OSError:  # the command closed its input; it may well go on
            self.close()
            return
        if self.ended:
            self.close()

    def take_frames(self, connection: Connection, on_frame: Callable[[Frame], None]) -> None:
        """Take the frames that are here, as far as their input fits; the rest waits for the command to take some.

        Raises:
            PeerGone: what came breaks the protocol.
        """
        while True:
            try:
                while not self.is_full and (frame := connection.next_frame()) is not None:
                    on_frame(frame)
            except WireError as error:
                raise PeerGone(str(error)) from error
            held_back = self.is_full
            self.write()
            if not held_back or self.is_full:
                return

    def close(self) -> None:
        """Close the pipe and forget what waits; doing it twice is fine."""
        if self._pipe is not None:
            os.close(self._pipe)
            self._pipe = None
            self._waiting.clear()
