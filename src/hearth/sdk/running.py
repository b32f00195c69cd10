"""A command's output as it comes, over as many connections as it takes; the twin of ``async_running``."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from hearth.api.limits import EXEC_ID_HEADER
from hearth.errors import HearthError, Unavailable
from hearth.sdk import calls
from hearth.sdk.call import read_problem
from hearth.sdk.results import ExecReader, Output
from hearth.sdk.transport import Incoming, Transport

if TYPE_CHECKING:
    from hearth.sdk.client import Client
    from hearth.sdk.http1 import HttpRequest

FIRST_PAUSE_S = 0.05
LAST_PAUSE_S = 1.0
"""Between attempts to come back to a command."""


class Running:
    """A command under way: iterate for its output, then ask for its exit code.

    A connection that is lost is made anew for ``linger_s`` seconds, and the output goes on where it was. ``exec_id`` is
    the command's; ``lost_bytes`` of its output were gone from its log before they could be read.
    """

    def __init__(
        self, client: Client, transport: Transport, ref: str, *, linger_s: float, attach: bool, after: int = 0
    ) -> None:
        self.exec_id = ""
        self._client = client
        self._transport = transport
        self._ref = ref
        self._linger_s = linger_s
        self._attach = attach
        self._follows = True
        self._reader = ExecReader(after)
        self._connection = contextlib.ExitStack()
        self._incoming: Incoming | None = None

    def open(self, request: HttpRequest, *, follow: bool = True) -> None:
        """Send a request and take its answer for the output from here on.

        Raises:
            HearthError: what the daemon says is wrong with it.
        """
        self._follows = follow
        self._connection.close()
        incoming = self._connection.enter_context(self._transport.open(request))
        if incoming.reader.status != 200:
            with self._client.deaths_told(self._ref):
                raise read_problem(incoming.whole())
        self.exec_id = incoming.reader.headers.get(EXEC_ID_HEADER.lower(), self.exec_id)
        self._reader.restart()
        self._incoming = incoming

    def close(self) -> None:
        """Close the connection; a command that lives for us is killed, unless it has ended."""
        ended = self._reader.exit_code is not None
        with contextlib.suppress(HearthError):
            self._connection.close()
        if self._attach and self._linger_s and self.exec_id and not ended:
            with contextlib.suppress(HearthError):
                self._client.commands.kill(self.exec_id)

    def __iter__(self) -> Iterator[Output]:
        with self._client.deaths_told(self._ref):
            while not self._is_over:
                try:
                    assert self._incoming is not None
                    for data in self._incoming:
                        yield from self._reader.feed(data)
                    if not self._is_over:
                        self._reader.finish()
                except Unavailable as error:
                    self._come_back(error)

    @property
    def exit_code(self) -> int:
        """0-255, or 128+n when signal n ended it; known once the output has been read to its end."""
        return self._reader.finish()

    @property
    def cursor(self) -> int:
        """The place in the output behind what has been read."""
        return self._reader.cursor

    @property
    def lost_bytes(self) -> int:
        return self._reader.lost_bytes

    @property
    def _is_over(self) -> bool:
        return self._reader.exit_code is not None or (self._reader.paused and not self._follows)

    def _come_back(self, lost: Unavailable) -> None:
        if not self.exec_id or not self._linger_s:
            raise lost
        deadline_s, pause_s = time.monotonic() + self._linger_s, FIRST_PAUSE_S
        while True:
            try:
                request = calls.output(self.exec_id, after=self.cursor, follow=self._follows, attach=self._attach)
                self.open(request, follow=self._follows)
            except Unavailable as error:
                if time.monotonic() + pause_s > deadline_s:
                    raise error from lost
            else:
                return
            time.sleep(pause_s)
            pause_s = min(pause_s * 2, LAST_PAUSE_S)
