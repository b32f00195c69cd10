"""``AsyncSandbox``: one sandbox of an ``AsyncClient``."""

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
from hearth.sdk.async_running import AsyncRunning
from hearth.sdk.async_stats import OwnFigures
from hearth.sdk.calls import CreateOptions, DetachOptions, ExecOptions
from hearth.sdk.results import Result
from hearth.sdk.sleep_calls import ChangeOptions

if TYPE_CHECKING:
    from hearth.sdk.async_client import AsyncClient
    from hearth.sdk.async_files import AsyncFiles
    from hearth.sdk.async_session import AsyncSession
    from hearth.sdk.async_sessions import AsyncSessions
    from hearth.sdk.session_calls import TerminalOptions


class AsyncSandbox(OwnFigures):
    """A computer of its own; as a context manager it is destroyed at the end.

    ``view`` is as it was when it was last given.
    """

    def __init__(self, client: AsyncClient, view: SandboxView) -> None:
        self.client = client
        self.view = view
        self._owns_client = False

    @classmethod
    async def create(cls, client: AsyncClient | None = None, **options: Unpack[CreateOptions]) -> AsyncSandbox:
        """Create a sandbox and wait until it runs; without a client it has one of its own, and closes it at the end.

        >>> async with await AsyncSandbox.create(client, name="own") as own:
        ...     (await own.run(["echo", "hello"])).stdout
        'hello\\n'
        """
        if client is not None:
            return await client.create(**options)
        own: AsyncClient = import_module("hearth.sdk.async_client").AsyncClient()
        try:
            made = await own.create(**options)
        except BaseException:
            await own.close()
            raise
        made._owns_client = True
        return made

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self.destroy()
        finally:
            if self._owns_client:
                await self.client.close()

    @property
    def id(self) -> str:
        """Its id, which stays whatever it is called.

        >>> (await client.get(sandbox.id)).name
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
    def files(self) -> AsyncFiles:
        """Its files.

        >>> await sandbox.files.write("/tmp/note", "remember me")
        >>> await sandbox.files.read_text("/tmp/note")
        'remember me'
        """
        return self.client.files(self.id)

    @property
    def sessions(self) -> AsyncSessions:
        """Its sessions, which outlive the connections to them.

        >>> [session.tty for session in await sandbox.sessions.list() if session.session_id == "none"]
        []
        """
        return self.client.sessions(self.id)

    def shell(self, **options: Unpack[TerminalOptions]) -> contextlib.AbstractAsyncContextManager[AsyncSession]:
        """Start a terminal with a login shell, or with ``cmd``; ``sessions.attach`` comes back to it.

        >>> async with sandbox.shell(cmd=["sh"], env={"PS1": ""}, rows=40, cols=120) as shell:
        ...     await shell.send("exit 3\\n")
        ...     output = b"".join([data async for data in shell])
        ...     shell.exit_code
        3
        """
        return self.sessions.terminal(**options)

    async def run(self, cmd: Sequence[str], **options: Unpack[ExecOptions]) -> Result:
        """Run a command to its end; any exit code is a result, ``.check()`` makes it an error.

        >>> (await sandbox.run(["cat"], stdin="in and out")).stdout
        'in and out'
        >>> (await sandbox.run(["false"])).exit_code
        1
        >>> (await sandbox.run(["false"])).check()
        Traceback (most recent call last):
        hearth.sdk.results.CommandFailed: exit code 1:
        """
        return await self.client.run(self.id, cmd, **options)

    def stream(
        self, cmd: Sequence[str], **options: Unpack[ExecOptions]
    ) -> contextlib.AbstractAsyncContextManager[AsyncRunning]:
        """Start a command and read its output as it comes; leaving the context early kills it.

        >>> async with sandbox.stream(["sh", "-c", "echo out; echo err >&2"]) as running:
        ...     sorted([(output.stream, output.data) async for output in running])
        [('stderr', b'err\\n'), ('stdout', b'out\\n')]
        """
        return self.client.stream(self.id, cmd, **options)

    async def detach(self, cmd: Sequence[str], **options: Unpack[DetachOptions]) -> ExecView:
        """Start a command that needs no client; ``client.commands.logs`` gives its output.

        >>> started = await sandbox.detach(["sleep", "1000"])
        >>> (await client.commands.kill(started.id)).id == started.id
        True
        """
        return await self.client.commands.detach(self.id, cmd, **options)

    async def execs(self) -> Sequence[ExecView]:
        """Give its commands, oldest first.

        >>> started = await sandbox.detach(["true"])
        >>> started.id in [each.id for each in await sandbox.execs()]
        True
        """
        return await self.client.commands.list(self.id)

    async def refresh(self) -> Self:
        """Look again: ``view`` is as it was when it was last given.

        >>> (await sandbox.refresh()).view.state
        'running'
        """
        self.view = await self.client.call(calls.get(self.id))
        return self

    async def update(self, **changes: Unpack[ChangeOptions]) -> Self:
        """Change name, labels, time to live or whether it may sleep; what is not given stays.

        >>> (await sandbox.update(ttl_s=86_400)).view.ttl_s
        86400
        >>> (await sandbox.update(ttl_s=None)).view.ttl_s
        """
        self.view = await self.client.call(sleep_calls.update(self.id, changes))
        return self

    async def stop(self) -> Self:
        """Bring it to disk, memory and all; any use wakes it again.

        >>> (await sandbox.stop()).view.heat
        'cold'
        >>> (await sandbox.run(["echo", "awake again"])).stdout
        'awake again\\n'
        """
        self.view = await self.client.call(sleep_calls.stop(self.id))
        return self

    async def start(self, *, force: bool = False) -> Self:
        """Wake it ahead of its use; ``force`` boots from disk what cannot be woken with its memory.

        >>> (await sandbox.start()).view.heat
        'hot'
        """
        self.view = await self.client.call(sleep_calls.start(self.id, force=force))
        return self

    async def pause(self) -> Self:
        """Stop its CPUs; any use makes them run again.

        >>> (await sandbox.pause()).view.heat
        'warm'
        """
        self.view = await self.client.call(sleep_calls.pause(self.id))
        return self

    async def resume(self) -> Self:
        """Let its CPUs run again.

        >>> (await sandbox.resume()).view.heat
        'hot'
        """
        self.view = await self.client.call(sleep_calls.resume(self.id))
        return self

    async def fork(self, count: int = 1, *, name: str | None = None) -> Sequence[AsyncSandbox]:
        """Make copies of it, memory and disk as they are now.

        >>> [copy] = await sandbox.fork()
        >>> (await copy.run(["hostname"])).stdout.strip() == copy.name
        True
        >>> await copy.destroy()
        """
        return await self.client.fork(self.id, count, name=name)

    async def checkpoint(self, name: str) -> SnapshotView:
        """Keep its memory and disk under a name; ``client.resume_snapshot`` makes sandboxes of that.

        >>> (await sandbox.checkpoint("milestone")).sandbox_name
        'web'
        >>> await client.delete_snapshot("milestone")
        """
        return await self.client.checkpoint(self.id, name)

    async def snapshot(self, name: str) -> SnapshotView:
        """Do what ``checkpoint`` does: what it makes is listed by ``client.snapshots``.

        >>> (await sandbox.snapshot("before-the-party")).name
        'before-the-party'
        >>> await client.delete_snapshot("before-the-party")
        """
        return await self.checkpoint(name)

    async def save_image(self, name: str) -> ImageView:
        """Make an image of its disk, to create others of.

        >>> (await sandbox.save_image("web-as-it-is")).name
        'web-as-it-is'
        """
        return await self.client.save_image(self.id, name)

    async def attach_volume(self, volume: str, mount: str, *, read_only: bool = False) -> MountedVolume:
        """Mount a volume in it: alone and writable, or read-only together with others.

        >>> made = await client.create_volume("cache", 64)
        >>> (await sandbox.attach_volume("cache", "/var/cache/web")).mount
        '/var/cache/web'
        >>> await sandbox.detach_volume("cache")
        >>> await client.delete_volume("cache")
        """
        return await self.client.attach_volume(self.id, volume, mount, read_only=read_only)

    async def detach_volume(self, volume: str) -> None:
        """Unmount a volume and take it out.

        >>> made = await client.create_volume("spool", 64)
        >>> mounted = await sandbox.attach_volume("spool", "/var/spool/web")
        >>> await sandbox.detach_volume("spool")
        >>> await client.delete_volume("spool")
        """
        await self.client.detach_volume(self.id, volume)

    async def destroy(self) -> None:
        """Destroy it and all it holds.

        >>> made = await client.create()
        >>> await made.destroy()
        """
        await self.client.destroy(self.id)
