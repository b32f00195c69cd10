"""Commands in sandboxes, by their ids; the twin of ``async_commands``."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Unpack

from hearth.api.exec_schemas import ExecView
from hearth.api.limits import MAX_LIST_LIMIT
from hearth.sdk import calls
from hearth.sdk.calls import DetachOptions
from hearth.sdk.running import Running
from hearth.sdk.transport import Transport

if TYPE_CHECKING:
    from hearth.sdk.client import Client


class Commands:
    """The commands of a daemon's sandboxes."""

    def __init__(self, client: Client, transport: Transport) -> None:
        self._client = client
        self._transport = transport

    def detach(self, ref: str, cmd: Sequence[str], **options: Unpack[DetachOptions]) -> ExecView:
        """Start a command that needs no client: ``logs`` gives its output, ``kill`` ends it."""
        with self._client.deaths_told(ref):
            return self._client.call(calls.detach(ref, cmd, options))

    def list(self, ref: str) -> Sequence[ExecView]:
        """Give the commands of a sandbox, oldest first; it is not woken."""
        return self._client.every(
            lambda cursor: self._client.call(calls.execs_page(ref, cursor=cursor, limit=MAX_LIST_LIMIT))
        )

    def get(self, exec_id: str) -> ExecView:
        """Give one command."""
        return self._client.call(calls.get_exec(exec_id))

    @contextlib.contextmanager
    def logs(self, exec_id: str, *, after: int = 0, follow: bool = True) -> Iterator[Running]:
        """Read a command's output after a cursor, to its end or, without ``follow``, to where it is now."""
        running = Running(self._client, self._transport, "", linger_s=calls.LINGER_S, attach=False, after=after)
        try:
            running.open(calls.output(exec_id, after=after, follow=follow), follow=follow)
            yield running
        finally:
            running.close()

    def feed(self, exec_id: str, data: str | bytes = b"", *, eof: bool = False) -> None:
        """Give a command that was started with ``keep_stdin`` more input, or the end of it."""
        self._client.call(calls.feed(exec_id, data, eof=eof))

    def kill(self, exec_id: str, signal: str | int = "KILL") -> ExecView:
        """Send a signal to a command's process group."""
        return self._client.call(calls.kill(exec_id, signal))

    def forget(self, exec_id: str) -> None:
        """Forget a command that has ended, and its output."""
        self._client.call(calls.delete_exec(exec_id))
