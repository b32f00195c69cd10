# Made of async_commands.py by 'make twins': change that.
"""Commands in sandboxes, by their ids."""

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
        """Start a command that needs no client: ``logs`` gives its output, ``kill`` ends it.

        >>> started = client.commands.detach("web", ["sleep", "1000"])
        >>> started.state
        'running'
        >>> killed = client.commands.kill(started.id)
        """
        with self._client.deaths_told(ref):
            return self._client.call(calls.detach(ref, cmd, options))

    def list(self, ref: str) -> Sequence[ExecView]:
        """Give the commands of a sandbox, oldest first; it is not woken.

        >>> started = client.commands.detach("web", ["true"])
        >>> started.id in [each.id for each in client.commands.list("web")]
        True
        """
        return self._client.every(
            lambda cursor: self._client.call(calls.execs_page(ref, cursor=cursor, limit=MAX_LIST_LIMIT))
        )

    def get(self, exec_id: str) -> ExecView:
        """Give one command.

        >>> started = client.commands.detach("web", ["true"])
        >>> client.commands.get(started.id).cmd
        ['true']
        """
        return self._client.call(calls.get_exec(exec_id))

    @contextlib.contextmanager
    def logs(self, exec_id: str, *, after: int = 0, follow: bool = True) -> Iterator[Running]:
        """Read a command's output after a cursor, to its end or, without ``follow``, to where it is now.

        >>> started = client.commands.detach("web", ["echo", "building"])
        >>> with client.commands.logs(started.id) as running:
        ...     [output.data for output in running]
        ...     running.exit_code
        [b'building\\n']
        0
        """
        running = Running(self._client, self._transport, "", linger_s=calls.LINGER_S, attach=False, after=after)
        try:
            running.open(calls.output(exec_id, after=after, follow=follow), follow=follow)
            yield running
        finally:
            running.close()

    def feed(self, exec_id: str, data: str | bytes = b"", *, eof: bool = False) -> None:
        """Give a command that was started with ``keep_stdin`` more input, or the end of it.

        >>> started = client.commands.detach("web", ["cat"], keep_stdin=True)
        >>> client.commands.feed(started.id, "more", eof=True)
        >>> with client.commands.logs(started.id) as running:
        ...     b"".join([output.data for output in running])
        b'more'
        """
        self._client.call(calls.feed(exec_id, data, eof=eof))

    def kill(self, exec_id: str, signal: str | int = "KILL") -> ExecView:
        """Send a signal to a command's process group.

        >>> started = client.commands.detach("web", ["sleep", "1000"])
        >>> killed = client.commands.kill(started.id, "TERM")
        >>> with client.commands.logs(started.id) as running:
        ...     [output.data for output in running], running.exit_code
        ([], 143)
        """
        return self._client.call(calls.kill(exec_id, signal))

    def forget(self, exec_id: str) -> None:
        """Forget a command that has ended, and its output.

        >>> started = client.commands.detach("web", ["true"])
        >>> with client.commands.logs(started.id) as running:
        ...     [output for output in running]
        []
        >>> client.commands.forget(started.id)
        """
        self._client.call(calls.delete_exec(exec_id))
