"""``AsyncClient`` and ``AsyncSandbox``: the asyncio shell over the calls; the twin of ``client``."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from types import TracebackType
from typing import Self, TypeVar, Unpack

from hearth.api.exec_schemas import ExecView
from hearth.api.limits import MAX_LIST_LIMIT
from hearth.api.net_schemas import EgressView
from hearth.api.schemas import ExitCauseView, Health, ImageView, SandboxView
from hearth.api.sleep_schemas import EndingView, MachineTemplateView, SnapshotView
from hearth.api.volume_schemas import MountedVolume, VolumeView
from hearth.errors import Conflict, GuestFailed, HearthError, NotFound
from hearth.sdk import calls, sleep_calls, volume_calls
from hearth.sdk.async_commands import AsyncCommands
from hearth.sdk.async_ports import AsyncPorts
from hearth.sdk.async_running import AsyncRunning
from hearth.sdk.async_secrets import AsyncSecrets
from hearth.sdk.async_stats import Figures, OwnFigures
from hearth.sdk.async_transport import AsyncTransport
from hearth.sdk.async_users import AsyncUsers
from hearth.sdk.call import Call, Page
from hearth.sdk.calls import CreateOptions, DetachOptions, ExecOptions
from hearth.sdk.died import NEWS_POLL_S, NEWS_S, SandboxDied, cause_in, may_be_news
from hearth.sdk.endpoint import find_endpoint
from hearth.sdk.results import Result, result_of
from hearth.sdk.sleep_calls import ChangeOptions, ShapeOptions
from hearth.sdk.with_events import WithAsyncEvents

Value = TypeVar("Value")
Item = TypeVar("Item")


class AsyncClient(Figures, WithAsyncEvents):
    """A daemon. Without arguments it is found by HEARTH_URL and HEARTH_TOKEN, else in the data directory.

    Sandboxes, checkpoints and the like are named by id or name. A sandbox that sleeps is woken by whatever uses it.
    """

    def __init__(self, url: str | None = None, token: str | None = None) -> None:
        self._transport = AsyncTransport(find_endpoint(url, token))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections that are kept."""
        await self._transport.close()

    async def call(self, call: Call[Value]) -> Value:
        """Carry out one operation."""
        return call.read(await self._transport.fetch(call.request))

    @property
    def ports(self) -> AsyncPorts:
        """What listens in sandboxes, what is published, and ways to it."""
        return AsyncPorts(self, self._transport.endpoint)

    @property
    def users(self) -> AsyncUsers:
        """Users and their keys."""
        return AsyncUsers(self)

    @property
    def secrets(self) -> AsyncSecrets:
        """The caller's secrets."""
        return AsyncSecrets(self)

    @property
    def commands(self) -> AsyncCommands:
        """What runs and ran in sandboxes: start, list, follow, feed, kill."""
        return AsyncCommands(self, self._transport)

    async def create(self, **options: Unpack[CreateOptions]) -> AsyncSandbox:
        """Create a sandbox and wait until it runs; an existing one of this name is given as it is."""
        return AsyncSandbox(self, await self.call(calls.create(options)))

    async def get(self, ref: str) -> AsyncSandbox:
        """Give the sandbox with this id or name."""
        return AsyncSandbox(self, await self.call(calls.get(ref)))

    async def list(self, labels: Mapping[str, str] | None = None) -> Sequence[AsyncSandbox]:
        """Give all sandboxes that carry all of ``labels``; none is woken."""
        views = await self.every(
            lambda cursor: self.call(calls.list_page(labels=labels or {}, cursor=cursor, limit=MAX_LIST_LIMIT))
        )
        return [AsyncSandbox(self, view) for view in views]

    async def destroy(self, ref: str) -> None:
        """Destroy a sandbox and all it holds; ``ending`` tells of it afterwards."""
        await self.call(calls.destroy(ref))

    async def run(self, ref: str, cmd: Sequence[str], **options: Unpack[ExecOptions]) -> Result:
        """Run a command to its end; any exit code is a result.

        Raises:
            SandboxDied: the sandbox's machine ended; ``cause`` tells why.
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
        """
        linger_s = float(options.get("linger_sec", calls.LINGER_S))
        running = AsyncRunning(self, self._transport, ref, linger_s=linger_s, attach=True)
        try:
            await running.open(calls.stream(ref, cmd, options))
            yield running
        finally:
            await running.close()

    async def update(self, ref: str, **changes: Unpack[ChangeOptions]) -> AsyncSandbox:
        """Change name, labels, time to live, network or whether it may sleep; the rest stays. It is not woken."""
        return AsyncSandbox(self, await self.call(sleep_calls.update(ref, changes)))

    async def egress(self, ref: str) -> EgressView:
        """Tell what a sandbox tried to reach, what refused it, and the shortest policy for what an audit saw."""
        return await self.call(sleep_calls.egress(ref))

    async def stop(self, ref: str) -> AsyncSandbox:
        """Bring a sandbox to disk, memory and all, and end its process; what runs in it goes on after the next use.

        Raises:
            Conflict: its disk is too full, or the engine's machines do not sleep.
        """
        return AsyncSandbox(self, await self.call(sleep_calls.stop(ref)))

    async def start(self, ref: str, *, force: bool = False) -> AsyncSandbox:
        """Wake a sandbox ahead of its use. ``force`` boots from disk what cannot be woken with its memory.

        Raises:
            Conflict: it cannot be woken without ``force``.
        """
        return AsyncSandbox(self, await self.call(sleep_calls.start(ref, force=force)))

    async def pause(self, ref: str) -> AsyncSandbox:
        """Stop a sandbox's CPUs; its memory stays where it is."""
        return AsyncSandbox(self, await self.call(sleep_calls.pause(ref)))

    async def resume(self, ref: str) -> AsyncSandbox:
        """Let a paused sandbox's CPUs run again."""
        return AsyncSandbox(self, await self.call(sleep_calls.resume(ref)))

    async def fork(self, ref: str, count: int = 1, *, name: str | None = None) -> Sequence[AsyncSandbox]:
        """Make copies of a living sandbox, memory and disk as they are now; ``name`` is what their names begin with."""
        async with self.deaths_told(ref):
            copies = await self.call(sleep_calls.fork(ref, name=name, count=count))
        return [AsyncSandbox(self, view) for view in copies.items]

    async def checkpoint(self, ref: str, name: str) -> SnapshotView:
        """Keep memory and disk of a living sandbox under a name, for any number of others to start from."""
        async with self.deaths_told(ref):
            return await self.call(sleep_calls.checkpoint(ref, name))

    async def save_image(self, ref: str, name: str) -> ImageView:
        """Make an image of a sandbox's disk, to create others of."""
        return await self.call(sleep_calls.save_image(ref, name))

    async def snapshots(self) -> Sequence[SnapshotView]:
        """Give all checkpoints, oldest first."""
        return await self.every(lambda cursor: self.call(sleep_calls.snapshots_page(cursor)))

    async def snapshot(self, ref: str) -> SnapshotView:
        """Give one checkpoint."""
        return await self.call(sleep_calls.snapshot(ref))

    async def delete_snapshot(self, ref: str) -> None:
        """Delete a checkpoint; what others need of it stays until they are gone."""
        await self.call(sleep_calls.delete_snapshot(ref))

    async def resume_snapshot(self, ref: str, count: int = 1, *, name: str | None = None) -> Sequence[AsyncSandbox]:
        """Make sandboxes that go on where a checkpoint was taken; ``name`` is what their names begin with."""
        copies = await self.call(sleep_calls.resume_snapshot(ref, name=name, count=count))
        return [AsyncSandbox(self, view) for view in copies.items]

    async def endings(self) -> Sequence[EndingView]:
        """Tell of the sandboxes that were destroyed, the first to end first, without their consoles."""
        return await self.every(lambda cursor: self.call(sleep_calls.endings_page(cursor)))

    async def ending(self, ref: str) -> EndingView:
        """Tell why a destroyed sandbox ended: by its id, or of those that bore a name the last."""
        return await self.call(sleep_calls.ending(ref))

    async def machine_templates(self) -> Sequence[MachineTemplateView]:
        """Give the machines kept ready to be cloned."""
        return (await self.call(sleep_calls.machine_templates())).items

    async def warm_template(self, **shape: Unpack[ShapeOptions]) -> MachineTemplateView:
        """Boot a machine of a shape and keep it ready: not even the first creation has to boot then."""
        return await self.call(sleep_calls.warm_template(shape))

    async def delete_template(self, ref: str) -> None:
        """Drop a machine kept ready; only administrators may."""
        await self.call(sleep_calls.delete_template(ref))

    async def create_volume(self, name: str, size_mb: int) -> VolumeView:
        """Make an empty volume of so many MiB with a file system."""
        return await self.call(volume_calls.create(name, size_mb))

    async def volumes(self) -> Sequence[VolumeView]:
        """Give all volumes, oldest first, and who has them."""
        return await self.every(lambda cursor: self.call(volume_calls.page(cursor)))

    async def volume(self, ref: str) -> VolumeView:
        """Give one volume."""
        return await self.call(volume_calls.get(ref))

    async def resize_volume(self, ref: str, size_mb: int) -> VolumeView:
        """Grow a volume that no sandbox has to so many MiB."""
        return await self.call(volume_calls.resize(ref, size_mb))

    async def clone_volume(self, ref: str, name: str) -> VolumeView:
        """Copy a volume that no sandbox writes to."""
        return await self.call(volume_calls.clone(ref, name))

    async def delete_volume(self, ref: str) -> None:
        """Delete a volume that no sandbox has, for good."""
        await self.call(volume_calls.delete(ref))

    async def attach_volume(self, ref: str, volume: str, mount: str, *, read_only: bool = False) -> MountedVolume:
        """Mount a volume in a sandbox: alone and writable, or read-only together with others."""
        return await self.call(volume_calls.attach(ref, volume, mount, read_only=read_only))

    async def detach_volume(self, ref: str, volume: str) -> None:
        """Unmount a volume and take it out of a sandbox.

        Raises:
            Conflict: something in the sandbox uses it.
        """
        await self.call(volume_calls.detach(ref, volume))

    async def images(self) -> Sequence[ImageView]:
        """Give the images of the host."""
        return (await self.call(calls.images())).items

    async def health(self) -> Health:
        """Ask the daemon how it is."""
        return await self.call(calls.health())

    @contextlib.asynccontextmanager
    async def deaths_told(self, ref: str) -> AsyncIterator[None]:
        """Turn the failure of what needed a sandbox into SandboxDied, where its machine's end is why."""
        try:
            yield
        except (GuestFailed, Conflict) as error:
            cause = await self._cause_of_death(ref, news_s=NEWS_S if isinstance(error, GuestFailed) else 0)
            if cause is None:
                raise
            raise SandboxDied(cause, error) from error

    async def _cause_of_death(self, ref: str, *, news_s: float) -> ExitCauseView | None:
        deadline_s = time.monotonic() + news_s
        try:
            view = await self.call(calls.get(ref))
            while may_be_news(view) and time.monotonic() < deadline_s:
                await asyncio.sleep(NEWS_POLL_S)
                view = await self.call(calls.get(ref))
        except NotFound:
            with contextlib.suppress(HearthError):
                return (await self.ending(ref)).exit_cause
            return None
        except HearthError:
            return None  # the caller has an error to raise already
        return cause_in(view)

    async def every(self, page_at: Callable[[str | None], Awaitable[Page[Item]]]) -> Sequence[Item]:
        page = await page_at(None)
        found = [*page.items]
        while page.next_cursor is not None:
            page = await page_at(page.next_cursor)
            found += page.items
        return found


class AsyncSandbox(OwnFigures):
    """A computer of its own; as an async context manager it is destroyed at the end."""

    def __init__(self, client: AsyncClient, view: SandboxView) -> None:
        self.client = client
        self.view = view

    @classmethod
    async def create(cls, client: AsyncClient | None = None, **options: Unpack[CreateOptions]) -> AsyncSandbox:
        """Create a sandbox and wait until it runs."""
        return await (client or AsyncClient()).create(**options)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.destroy()

    @property
    def id(self) -> str:
        return self.view.id

    @property
    def name(self) -> str:
        return self.view.name

    async def run(self, cmd: Sequence[str], **options: Unpack[ExecOptions]) -> Result:
        """Run a command to its end; any exit code is a result, ``.check()`` makes it an error."""
        return await self.client.run(self.id, cmd, **options)

    def stream(
        self, cmd: Sequence[str], **options: Unpack[ExecOptions]
    ) -> contextlib.AbstractAsyncContextManager[AsyncRunning]:
        """Start a command: ``async with sandbox.stream(["make"]) as running: async for output in running: ...``."""
        return self.client.stream(self.id, cmd, **options)

    async def detach(self, cmd: Sequence[str], **options: Unpack[DetachOptions]) -> ExecView:
        """Start a command that needs no client; ``client.commands.logs`` gives its output."""
        return await self.client.commands.detach(self.id, cmd, **options)

    async def execs(self) -> Sequence[ExecView]:
        """Give its commands, oldest first."""
        return await self.client.commands.list(self.id)

    async def refresh(self) -> Self:
        """Look again: ``view`` is as it was when it was last given."""
        self.view = await self.client.call(calls.get(self.id))
        return self

    async def update(self, **changes: Unpack[ChangeOptions]) -> Self:
        """Change name, labels, time to live or whether it may sleep; what is not given stays."""
        self.view = await self.client.call(sleep_calls.update(self.id, changes))
        return self

    async def stop(self) -> Self:
        """Bring it to disk, memory and all; any use wakes it again."""
        self.view = await self.client.call(sleep_calls.stop(self.id))
        return self

    async def start(self, *, force: bool = False) -> Self:
        """Wake it ahead of its use; ``force`` boots from disk what cannot be woken with its memory."""
        self.view = await self.client.call(sleep_calls.start(self.id, force=force))
        return self

    async def pause(self) -> Self:
        """Stop its CPUs; any use makes them run again."""
        self.view = await self.client.call(sleep_calls.pause(self.id))
        return self

    async def resume(self) -> Self:
        """Let its CPUs run again."""
        self.view = await self.client.call(sleep_calls.resume(self.id))
        return self

    async def fork(self, count: int = 1, *, name: str | None = None) -> Sequence[AsyncSandbox]:
        """Make copies of it, memory and disk as they are now."""
        return await self.client.fork(self.id, count, name=name)

    async def checkpoint(self, name: str) -> SnapshotView:
        """Keep its memory and disk under a name; ``client.resume_snapshot`` makes sandboxes of that."""
        return await self.client.checkpoint(self.id, name)

    async def save_image(self, name: str) -> ImageView:
        """Make an image of its disk, to create others of."""
        return await self.client.save_image(self.id, name)

    async def attach_volume(self, volume: str, mount: str, *, read_only: bool = False) -> MountedVolume:
        """Mount a volume in it: alone and writable, or read-only together with others."""
        return await self.client.attach_volume(self.id, volume, mount, read_only=read_only)

    async def detach_volume(self, volume: str) -> None:
        """Unmount a volume and take it out."""
        await self.client.detach_volume(self.id, volume)

    async def destroy(self) -> None:
        """Destroy it and all it holds."""
        await self.client.destroy(self.id)
