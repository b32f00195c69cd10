# Made of async_sandbox.py by 'make twins': change that.
"""``Sandbox``: one sandbox of an ``Client``."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from importlib import import_module
from types import TracebackType
from typing import TYPE_CHECKING, Self, Unpack

from hearth.api.exec_schemas import ExecView
from hearth.api.image_schemas import ImageView
from hearth.api.schemas import SandboxView
from hearth.api.sleep_schemas import SnapshotView
from hearth.api.volume_schemas import MountedVolume
from hearth.sdk import calls, sleep_calls
from hearth.sdk.calls import CreateOptions, DetachOptions, ExecOptions
from hearth.sdk.results import Result
from hearth.sdk.running import Running
from hearth.sdk.sleep_calls import ChangeOptions
from hearth.sdk.stats import OwnFigures

if TYPE_CHECKING:
    from hearth.sdk.client import Client
    from hearth.sdk.files import Files
    from hearth.sdk.session import Session
    from hearth.sdk.session_calls import TerminalOptions
    from hearth.sdk.sessions import Sessions


class Sandbox(OwnFigures):
    """A computer of its own; as a context manager it is destroyed at the end.

    ``view`` is as it was when it was last given.
    """

    def __init__(self, client: Client, view: SandboxView) -> None:
        self.client = client
        self.view = view
        self._owns_client = False

    @classmethod
    def create(cls, client: Client | None = None, **options: Unpack[CreateOptions]) -> Sandbox:
        """Create a sandbox and wait until it runs; without a client it has one of its own, and closes it at the end.

        >>> with Sandbox.create(client, name="own") as own:
        ...     own.run(["echo", "hello"]).stdout
        'hello\\n'
        """
        if client is not None:
            return client.create(**options)
        own: Client = import_module("hearth.sdk.client").Client()
        try:
            made = own.create(**options)
        except BaseException:
            own.close()
            raise
        made._owns_client = True
        return made

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.destroy()
        finally:
            if self._owns_client:
                self.client.close()

    @property
    def id(self) -> str:
        """Its id, which stays whatever it is called.

        >>> client.get(sandbox.id).name
        'web'
        """
        return self.view.id

    @property
    def name(self) -> str:
        """Its name, as it was when ``view`` was given.

        >>> sandbox.name
        'web'
        """
        return self.view.name

    @property
    def files(self) -> Files:
        """Its files.

        >>> sandbox.files.write("/tmp/note", "remember me")
        >>> sandbox.files.read_text("/tmp/note")
        'remember me'
        """
        return self.client.files(self.id)

    @property
    def sessions(self) -> Sessions:
        """Its sessions, which outlive the connections to them.

        >>> [session.tty for session in sandbox.sessions.list() if session.session_id == "none"]
        []
        """
        return self.client.sessions(self.id)

    def shell(self, **options: Unpack[TerminalOptions]) -> contextlib.AbstractContextManager[Session]:
        """Start a terminal with a login shell, or with ``cmd``; ``sessions.attach`` comes back to it.

        >>> with sandbox.shell(cmd=["sh"], env={"PS1": ""}, rows=40, cols=120) as shell:
        ...     shell.send("exit 3\\n")
        ...     output = b"".join([data for data in shell])
        ...     shell.exit_code
        3
        """
        return self.sessions.terminal(**options)

    def run(self, cmd: Sequence[str], **options: Unpack[ExecOptions]) -> Result:
        """Run a command to its end; any exit code is a result, ``.check()`` makes it an error.

        >>> sandbox.run(["cat"], stdin="in and out").stdout
        'in and out'
        >>> sandbox.run(["false"]).exit_code
        1
        >>> sandbox.run(["false"]).check()
        Traceback (most recent call last):
        hearth.sdk.results.CommandFailed: exit code 1:
        """
        return self.client.run(self.id, cmd, **options)

    def stream(self, cmd: Sequence[str], **options: Unpack[ExecOptions]) -> contextlib.AbstractContextManager[Running]:
        """Start a command and read its output as it comes; leaving the context early kills it.

        >>> with sandbox.stream(["sh", "-c", "echo out; echo err >&2"]) as running:
        ...     sorted([(output.stream, output.data) for output in running])
        [('stderr', b'err\\n'), ('stdout', b'out\\n')]
        """
        return self.client.stream(self.id, cmd, **options)

    def detach(self, cmd: Sequence[str], **options: Unpack[DetachOptions]) -> ExecView:
        """Start a command that needs no client; ``client.commands.logs`` gives its output.

        >>> started = sandbox.detach(["sleep", "1000"])
        >>> client.commands.kill(started.id).id == started.id
        True
        """
        return self.client.commands.detach(self.id, cmd, **options)

    def execs(self) -> Sequence[ExecView]:
        """Give its commands, oldest first.

        >>> started = sandbox.detach(["true"])
        >>> started.id in [each.id for each in sandbox.execs()]
        True
        """
        return self.client.commands.list(self.id)

    def refresh(self) -> Self:
        """Look again: ``view`` is as it was when it was last given.

        >>> sandbox.refresh().view.state
        'running'
        """
        self.view = self.client.call(calls.get(self.id))
        return self

    def update(self, **changes: Unpack[ChangeOptions]) -> Self:
        """Change name, labels, time to live or whether it may sleep; what is not given stays.

        >>> sandbox.update(ttl_s=86_400).view.ttl_s
        86400
        >>> sandbox.update(ttl_s=None).view.ttl_s
        """
        self.view = self.client.call(sleep_calls.update(self.id, changes))
        return self

    def stop(self) -> Self:
        """Bring it to disk, memory and all; any use wakes it again.

        >>> sandbox.stop().view.heat
        'cold'
        >>> sandbox.run(["echo", "awake again"]).stdout
        'awake again\\n'
        """
        self.view = self.client.call(sleep_calls.stop(self.id))
        return self

    def start(self, *, force: bool = False) -> Self:
        """Wake it ahead of its use; ``force`` boots from disk what cannot be woken with its memory.

        >>> sandbox.start().view.heat
        'hot'
        """
        self.view = self.client.call(sleep_calls.start(self.id, force=force))
        return self

    def pause(self) -> Self:
        """Stop its CPUs; any use makes them run again.

        >>> sandbox.pause().view.heat
        'warm'
        """
        self.view = self.client.call(sleep_calls.pause(self.id))
        return self

    def resume(self) -> Self:
        """Let its CPUs run again.

        >>> sandbox.resume().view.heat
        'hot'
        """
        self.view = self.client.call(sleep_calls.resume(self.id))
        return self

    def fork(self, count: int = 1, *, name: str | None = None) -> Sequence[Sandbox]:
        """Make copies of it, memory and disk as they are now.

        >>> [copy] = sandbox.fork()
        >>> copy.run(["hostname"]).stdout.strip() == copy.name
        True
        >>> copy.destroy()
        """
        return self.client.fork(self.id, count, name=name)

    def checkpoint(self, name: str) -> SnapshotView:
        """Keep its memory and disk under a name; ``client.resume_snapshot`` makes sandboxes of that.

        >>> sandbox.checkpoint("milestone").sandbox_name
        'web'
        >>> client.delete_snapshot("milestone")
        """
        return self.client.checkpoint(self.id, name)

    def snapshot(self, name: str) -> SnapshotView:
        """Do what ``checkpoint`` does: what it makes is listed by ``client.snapshots``.

        >>> sandbox.snapshot("before-the-party").name
        'before-the-party'
        >>> client.delete_snapshot("before-the-party")
        """
        return self.checkpoint(name)

    def save_image(self, name: str) -> ImageView:
        """Make an image of its disk, to create others of.

        >>> sandbox.save_image("web-as-it-is").name
        'web-as-it-is'
        """
        return self.client.save_image(self.id, name)

    def attach_volume(self, volume: str, mount: str, *, read_only: bool = False) -> MountedVolume:
        """Mount a volume in it: alone and writable, or read-only together with others.

        >>> made = client.create_volume("cache", 64)
        >>> sandbox.attach_volume("cache", "/var/cache/web").mount
        '/var/cache/web'
        >>> sandbox.detach_volume("cache")
        >>> client.delete_volume("cache")
        """
        return self.client.attach_volume(self.id, volume, mount, read_only=read_only)

    def detach_volume(self, volume: str) -> None:
        """Unmount a volume and take it out.

        >>> made = client.create_volume("spool", 64)
        >>> mounted = sandbox.attach_volume("spool", "/var/spool/web")
        >>> sandbox.detach_volume("spool")
        >>> client.delete_volume("spool")
        """
        self.client.detach_volume(self.id, volume)

    def destroy(self) -> None:
        """Destroy it and all it holds.

        >>> made = client.create()
        >>> made.destroy()
        """
        self.client.destroy(self.id)
