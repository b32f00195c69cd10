"""The input of a command, as a pipe here would give it: what is there at once goes along, the rest as it comes."""

from __future__ import annotations

import contextlib
import os
import select
import stat
import threading
from dataclasses import dataclass

from hearth.errors import Conflict, HearthError, InvalidInput, NotFound
from hearth.sdk.client import Client

STDIN = 0
HEAD_BYTES = 512 * 1024
"""What goes along with the request; in base64 it fits into a body."""
PIECE_BYTES = 512 * 1024
PAUSE_MS = 20
"""So long more is waited for before the command is started without it: what a quick program in front of us needs."""


@dataclass(frozen=True, kw_only=True)
class Head:
    """The beginning of our input; ``is_whole`` where it ended there."""

    data: bytes | None
    is_whole: bool


NOTHING = Head(data=None, is_whole=True)


def read_head(descriptor: int = STDIN) -> Head:
    """Read what is there at once of a file, a pipe or a socket; a terminal or /dev/null has nothing for a command."""
    try:
        mode = os.fstat(descriptor).st_mode
    except OSError:
        return NOTHING  # closed by whoever started us
    if not (stat.S_ISREG(mode) or stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)):
        return NOTHING
    arrival = select.poll()
    arrival.register(descriptor, select.POLLIN)
    data = bytearray()
    while len(data) < HEAD_BYTES and arrival.poll(PAUSE_MS):
        piece = os.read(descriptor, HEAD_BYTES - len(data))
        if not piece:
            return Head(data=bytes(data), is_whole=True)
        data += piece
    return Head(data=bytes(data), is_whole=False)


class Feeder:
    """Gives a running command the rest of our input, and its end.

    A command that ends wants no more. One that could not be given all of it is killed: half must not pass for all.
    """

    def __init__(self, exec_id: str, descriptor: int = STDIN) -> None:
        self._exec_id = exec_id
        self._descriptor = descriptor
        self.error: HearthError | None = None

    def start(self) -> None:
        """Feed beside the caller; nobody waits for a pipe that says nothing any more."""
        threading.Thread(target=self.run, name="input", daemon=True).start()

    def run(self) -> None:
        """Feed to the end; ``error`` says what went wrong."""
        with Client() as client:
            try:
                self._feed(client)
            except (Conflict, NotFound):
                return
            except HearthError as error:
                self.error = error
                with contextlib.suppress(HearthError):
                    client.commands.kill(self._exec_id)

    def _feed(self, client: Client) -> None:
        while piece := self._read():
            client.commands.feed(self._exec_id, piece)
        client.commands.feed(self._exec_id, eof=True)

    def _read(self) -> bytes:
        try:
            return os.read(self._descriptor, PIECE_BYTES)  # no buffer whose lock would be held at the interpreter's end
        except OSError as error:
            raise InvalidInput("the input cannot be read", details=f"stdin: {error.strerror}", field="stdin") from error
