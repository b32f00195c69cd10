"""``AsyncClient``: what sandboxes do and are; more of it is in ``async_core``, ``async_keeping``, ``async_volumes``."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Unpack

from hearth.api.limits import MAX_LIST_LIMIT
from hearth.api.net_schemas import EgressView
from hearth.api.schemas import Health
from hearth.sdk import calls, sleep_calls
from hearth.sdk.async_commands import AsyncCommands
from hearth.sdk.async_keeping import AsyncKeeping
from hearth.sdk.async_running import AsyncRunning
from hearth.sdk.async_sandbox import AsyncSandbox
from hearth.sdk.async_stats import Figures
from hearth.sdk.async_volumes import AsyncVolumes
from hearth.sdk.calls import CreateOptions, ExecOptions
from hearth.sdk.results import Result, result_of
from hearth.sdk.sleep_calls import ChangeOptions
from hearth.sdk.with_events import WithAsyncEvents

if TYPE_CHECKING:
    from hearth.sdk.async_files import AsyncFiles
    from hearth.sdk.async_images import AsyncImages
    from hearth.sdk.async_ports import AsyncPorts
    from hearth.sdk.async_provisioning import AsyncProvisioning
    from hearth.sdk.async_secrets import AsyncSecrets
    from hearth.sdk.async_sessions import AsyncSessions
    from hearth.sdk.async_templates import AsyncTemplates
    from hearth.sdk.async_users import AsyncUsers

__all__ = ["AsyncClient", "AsyncSandbox"]


class AsyncClient(AsyncKeeping, AsyncVolumes, Figures, WithAsyncEvents):
    """A daemon. Without arguments it is found by HEARTH_URL and HEARTH_TOKEN, else in the data directory.

    Sandboxes, checkpoints and the like are named by id or name. A sandbox that sleeps is woken by whatever uses it.
    """

    @property
    def ports(self) -> AsyncPorts:
        """What listens in sandboxes, what is published, and ways to it.

        >>> 3999 in [port.port for port in await client.ports.of("web")]
        False
        """
        found: AsyncPorts = import_module("hearth.sdk.async_ports").AsyncPorts(self, self._transport.endpoint)
        return found

    @property
    def users(self) -> AsyncUsers:
        """Users and their keys.

        >>> (await client.users.get("me")).admin
        True
        """
        found: AsyncUsers = import_module("hearth.sdk.async_users").AsyncUsers(self)
        return found

    @property
    def secrets(self) -> AsyncSecrets:
        """The caller's secrets.

        >>> [secret.name for secret in await client.secrets.every()]
        []
        """
        found: AsyncSecrets = import_module("hearth.sdk.async_secrets").AsyncSecrets(self)
        return found

    @property
    def images(self) -> AsyncImages:
        """What sandboxes are made of.

        >>> "debian" in [image.name for image in await client.images.list()]
        True
        """
        found: AsyncImages = import_module("hearth.sdk.async_images").AsyncImages(self, self._transport)
        return found

    @property
    def provisioning(self) -> AsyncProvisioning:
        """Volumes that are filled from golden images; for administrators.

        >>> [volume.volume_name for volume in await client.provisioning.volumes()]
        []
        """
        module = import_module("hearth.sdk.async_provisioning")
        found: AsyncProvisioning = module.AsyncProvisioning(self, self._transport)
        return found

    @property
    def templates(self) -> AsyncTemplates:
        """The caller's templates: descriptions of sandboxes to come.

        >>> [template.name for template in await client.templates.every()]
        []
        """
        found: AsyncTemplates = import_module("hearth.sdk.async_templates").AsyncTemplates(self)
        return found

    @property
    def commands(self) -> AsyncCommands:
        """What runs and ran in sandboxes: start, list, follow, feed, kill.

        >>> started = await client.commands.detach("web", ["true"])
        >>> started.cmd
        ['true']
        """
        return AsyncCommands(self, self._transport)

    def files(self, ref: str) -> AsyncFiles:
        """Give the files of a sandbox.

        >>> await client.files("web").exists("/etc/passwd")
        True
        """
        module = import_module("hearth.sdk.async_files")
        found: AsyncFiles = module.AsyncFiles(self, self._transport, ref)
        return found

    def sessions(self, ref: str) -> AsyncSessions:
        """Give the sessions of a sandbox: terminals and piped ones.

        >>> async with client.sessions("web").terminal(cmd=["echo", "hello"]) as terminal:
        ...     b"".join([data async for data in terminal])
        b'hello\\r\\n'
        """
        module = import_module("hearth.sdk.async_sessions")
        found: AsyncSessions = module.AsyncSessions(self, self._transport, ref)
        return found

    async def create(self, **options: Unpack[CreateOptions]) -> AsyncSandbox:
        """Create a sandbox and wait until it runs; an existing one of this name is given as it is.

        >>> async with await client.create(name="made", labels={"team": "a"}, env={"MODE": "test"}) as made:
        ...     (await made.run(["printenv", "MODE"])).stdout
        'test\\n'
        """
        return AsyncSandbox(self, await self.call(calls.create(options)))

    async def get(self, ref: str) -> AsyncSandbox:
        """Give the sandbox with this id or name.

        >>> (await client.get("web")).view.state
        'running'
        """
        return AsyncSandbox(self, await self.call(calls.get(ref)))

    async def list(self, labels: Mapping[str, str] | None = None) -> Sequence[AsyncSandbox]:
        """Give all sandboxes that carry all of ``labels``; none is woken.

        >>> [each.name for each in await client.list()]
        ['web']
        >>> [each.name for each in await client.list({"team": "none"})]
        []
        """
        views = await self.every(
            lambda cursor: self.call(calls.list_page(labels=labels or {}, cursor=cursor, limit=MAX_LIST_LIMIT))
        )
        return [AsyncSandbox(self, view) for view in views]

    async def destroy(self, ref: str) -> None:
        """Destroy a sandbox and all it holds; ``ending`` tells of it afterwards.

        >>> made = await client.create(name="short-lived")
        >>> await client.destroy("short-lived")
        """
        await self.call(calls.destroy(ref))

    async def run(self, ref: str, cmd: Sequence[str], **options: Unpack[ExecOptions]) -> Result:
        """Run a command to its end; any exit code is a result.

        Raises:
            SandboxDied: the sandbox's machine ended; ``cause`` tells why.

        >>> result = await client.run("web", ["sh", "-c", "echo done; exit 3"])
        >>> result.stdout, result.exit_code
        ('done\\n', 3)
        """
        call = calls.run(ref, cmd, options)
        async with self.deaths_told(ref):
            return result_of(await self.call(call))

    @contextlib.asynccontextmanager
    async def stream(self, ref: str, cmd: Sequence[str], **options: Unpack[ExecOptions]) -> AsyncIterator[AsyncRunning]:
        """Start a command and read its output as it comes; leaving the context early kills it.

        A lost connection is made anew; the command waits ``linger_sec`` (30) seconds for that.

        Raises:
            SandboxDied: the sandbox's machine ended; ``cause`` tells why.

        >>> async with client.stream("web", ["sh", "-c", "echo one; echo two"]) as running:
        ...     b"".join([output.data async for output in running])
        ...     running.exit_code
        b'one\\ntwo\\n'
        0
        """
        linger_s = float(options.get("linger_sec", calls.LINGER_S))
        running = AsyncRunning(self, self._transport, ref, linger_s=linger_s, attach=True)
        try:
            await running.open(calls.stream(ref, cmd, options))
            yield running
        finally:
            await running.close()

    async def update(self, ref: str, **changes: Unpack[ChangeOptions]) -> AsyncSandbox:
        """Change name, labels, time to live, network or whether it may sleep; the rest stays. It is not woken.

        >>> (await client.update("web", labels_add={"team": "b"})).view.labels
        {'team': 'b'}
        >>> (await client.update("web", labels_remove=["team"])).view.labels
        {}
        """
        return AsyncSandbox(self, await self.call(sleep_calls.update(ref, changes)))

    async def egress(self, ref: str) -> EgressView:
        """Tell what a sandbox tried to reach, what refused it, and the shortest policy for what an audit saw.

        >>> (await client.egress("web")).attempts
        []
        """
        return await self.call(sleep_calls.egress(ref))

    async def stop(self, ref: str) -> AsyncSandbox:
        """Bring a sandbox to disk, memory and all, and end its process; what runs in it goes on after the next use.

        Raises:
            Conflict: its disk is too full, or the engine's machines do not sleep.

        >>> (await client.stop("web")).view.heat
        'cold'
        """
        return AsyncSandbox(self, await self.call(sleep_calls.stop(ref)))

    async def start(self, ref: str, *, force: bool = False) -> AsyncSandbox:
        """Wake a sandbox ahead of its use. ``force`` boots from disk what cannot be woken with its memory.

        Raises:
            Conflict: it cannot be woken without ``force``.

        >>> (await client.start("web")).view.heat
        'hot'
        """
        return AsyncSandbox(self, await self.call(sleep_calls.start(ref, force=force)))

    async def pause(self, ref: str) -> AsyncSandbox:
        """Stop a sandbox's CPUs; its memory stays where it is.

        >>> (await client.pause("web")).view.heat
        'warm'
        """
        return AsyncSandbox(self, await self.call(sleep_calls.pause(ref)))

    async def resume(self, ref: str) -> AsyncSandbox:
        """Let a paused sandbox's CPUs run again.

        >>> paused = await client.pause("web")
        >>> (await client.resume("web")).view.heat
        'hot'
        """
        return AsyncSandbox(self, await self.call(sleep_calls.resume(ref)))

    async def fork(self, ref: str, count: int = 1, *, name: str | None = None) -> Sequence[AsyncSandbox]:
        """Make copies of a living sandbox, memory and disk as they are now; ``name`` is what their names begin with.

        >>> copies = await client.fork("web", 2, name="try")
        >>> len(copies), {copy.view.parent for copy in copies} == {(await client.get("web")).id}
        (2, True)
        >>> for copy in copies:
        ...     await copy.destroy()
        """
        async with self.deaths_told(ref):
            copies = await self.call(sleep_calls.fork(ref, name=name, count=count))
        return [AsyncSandbox(self, view) for view in copies.items]

    async def resume_snapshot(self, ref: str, count: int = 1, *, name: str | None = None) -> Sequence[AsyncSandbox]:
        """Make sandboxes that go on where a checkpoint was taken; ``name`` is what their names begin with.

        >>> kept = await client.checkpoint("web", "ready-to-go")
        >>> [again] = await client.resume_snapshot("ready-to-go")
        >>> (await again.run(["echo", "on it goes"])).stdout
        'on it goes\\n'
        >>> await again.destroy()
        >>> await client.delete_snapshot("ready-to-go")
        """
        copies = await self.call(sleep_calls.resume_snapshot(ref, name=name, count=count))
        return [AsyncSandbox(self, view) for view in copies.items]

    async def health(self) -> Health:
        """Ask the daemon how it is.

        >>> (await client.health()).status
        'healthy'
        """
        return await self.call(calls.health())
