"""``Client`` and ``Sandbox``: the blocking shell over the calls; the twin of ``async_client``."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar, Unpack

from hearth.api.exec_schemas import ExecView
from hearth.api.limits import MAX_LIST_LIMIT
from hearth.api.net_schemas import EgressView
from hearth.api.schemas import ExitCauseView, Health, ImageView, SandboxView
from hearth.api.sleep_schemas import EndingView, MachineTemplateView, SnapshotView
from hearth.api.volume_schemas import MountedVolume, VolumeView
from hearth.errors import Conflict, GuestFailed, HearthError, NotFound
from hearth.sdk import calls, sleep_calls, volume_calls
from hearth.sdk.call import Call, Page
from hearth.sdk.calls import CreateOptions, DetachOptions, ExecOptions
from hearth.sdk.commands import Commands
from hearth.sdk.died import NEWS_POLL_S, NEWS_S, SandboxDied, cause_in, may_be_news
from hearth.sdk.endpoint import find_endpoint
from hearth.sdk.results import Result, result_of
from hearth.sdk.running import Running
from hearth.sdk.sleep_calls import ChangeOptions, ShapeOptions
from hearth.sdk.stats import Figures, OwnFigures
from hearth.sdk.transport import Transport
from hearth.sdk.with_events import WithEvents

if TYPE_CHECKING:
    from hearth.sdk.ports import Ports
    from hearth.sdk.secrets import Secrets
    from hearth.sdk.users import Users

Value = TypeVar("Value")
Item = TypeVar("Item")


class Client(Figures, WithEvents):
    """A daemon. Without arguments it is found by HEARTH_URL and HEARTH_TOKEN, else in the data directory.

    Sandboxes, checkpoints and the like are named by id or name. A sandbox that sleeps is woken by whatever uses it.
    """

    def __init__(self, url: str | None = None, token: str | None = None) -> None:
        self._transport = Transport(find_endpoint(url, token))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections that are kept."""
        self._transport.close()

    def call(self, call: Call[Value]) -> Value:
        """Carry out one operation."""
        return call.read(self._transport.fetch(call.request))

    @property
    def ports(self) -> Ports:
        """What listens in sandboxes, what is published, and ways to it."""
        found: Ports = import_module("hearth.sdk.ports").Ports(self, self._transport.endpoint)
        return found

    @property
    def users(self) -> Users:
        """Users and their keys."""
        found: Users = import_module("hearth.sdk.users").Users(self)
        return found

    @property
    def secrets(self) -> Secrets:
        """The caller's secrets."""
        found: Secrets = import_module("hearth.sdk.secrets").Secrets(self)
        return found

    @property
    def commands(self) -> Commands:
        """What runs and ran in sandboxes: start, list, follow, feed, kill."""
        return Commands(self, self._transport)

    def create(self, **options: Unpack[CreateOptions]) -> Sandbox:
        """Create a sandbox and wait until it runs; an existing one of this name is given as it is."""
        return Sandbox(self, self.call(calls.create(options)))

    def get(self, ref: str) -> Sandbox:
        """Give the sandbox with this id or name."""
        return Sandbox(self, self.call(calls.get(ref)))

    def list(self, labels: Mapping[str, str] | None = None) -> Sequence[Sandbox]:
        """Give all sandboxes that carry all of ``labels``; none is woken."""
        views = self.every(
            lambda cursor: self.call(calls.list_page(labels=labels or {}, cursor=cursor, limit=MAX_LIST_LIMIT))
        )
        return [Sandbox(self, view) for view in views]

    def destroy(self, ref: str) -> None:
        """Destroy a sandbox and all it holds; ``ending`` tells of it afterwards."""
        self.call(calls.destroy(ref))

    def run(self, ref: str, cmd: Sequence[str], **options: Unpack[ExecOptions]) -> Result:
        """Run a command to its end; any exit code is a result.

        Raises:
            SandboxDied: the sandbox's machine ended; ``cause`` tells why.
        """
        call = calls.run(ref, cmd, options)
        with self.deaths_told(ref):
            return result_of(self.call(call))

    @contextlib.contextmanager
    def stream(self, ref: str, cmd: Sequence[str], **options: Unpack[ExecOptions]) -> Iterator[Running]:
        """Start a command and read its output as it comes; leaving the context early kills it.

        A lost connection is made anew; the command waits ``linger_sec`` (30) seconds for that.

        Raises:
            SandboxDied: the sandbox's machine ended; ``cause`` tells why.
        """
        linger_s = float(options.get("linger_sec", calls.LINGER_S))
        running = Running(self, self._transport, ref, linger_s=linger_s, attach=True)
        try:
            running.open(calls.stream(ref, cmd, options))
            yield running
        finally:
            running.close()

    def update(self, ref: str, **changes: Unpack[ChangeOptions]) -> Sandbox:
        """Change name, labels, time to live, network or whether it may sleep; the rest stays. It is not woken."""
        return Sandbox(self, self.call(sleep_calls.update(ref, changes)))

    def egress(self, ref: str) -> EgressView:
        """Tell what a sandbox tried to reach, what refused it, and the shortest policy for what an audit saw."""
        return self.call(sleep_calls.egress(ref))

    def stop(self, ref: str) -> Sandbox:
        """Bring a sandbox to disk, memory and all, and end its process; what runs in it goes on after the next use.

        Raises:
            Conflict: its disk is too full, or the engine's machines do not sleep.
        """
        return Sandbox(self, self.call(sleep_calls.stop(ref)))

    def start(self, ref: str, *, force: bool = False) -> Sandbox:
        """Wake a sandbox ahead of its use. ``force`` boots from disk what cannot be woken with its memory.

        Raises:
            Conflict: it cannot be woken without ``force``.
        """
        return Sandbox(self, self.call(sleep_calls.start(ref, force=force)))

    def pause(self, ref: str) -> Sandbox:
        """Stop a sandbox's CPUs; its memory stays where it is."""
        return Sandbox(self, self.call(sleep_calls.pause(ref)))

    def resume(self, ref: str) -> Sandbox:
        """Let a paused sandbox's CPUs run again."""
        return Sandbox(self, self.call(sleep_calls.resume(ref)))

    def fork(self, ref: str, count: int = 1, *, name: str | None = None) -> Sequence[Sandbox]:
        """Make copies of a living sandbox, memory and disk as they are now; ``name`` is what their names begin with."""
        with self.deaths_told(ref):
            copies = self.call(sleep_calls.fork(ref, name=name, count=count))
        return [Sandbox(self, view) for view in copies.items]

    def checkpoint(self, ref: str, name: str) -> SnapshotView:
        """Keep memory and disk of a living sandbox under a name, for any number of others to start from."""
        with self.deaths_told(ref):
            return self.call(sleep_calls.checkpoint(ref, name))

    def save_image(self, ref: str, name: str) -> ImageView:
        """Make an image of a sandbox's disk, to create others of."""
        return self.call(sleep_calls.save_image(ref, name))

    def snapshots(self) -> Sequence[SnapshotView]:
        """Give all checkpoints, oldest first."""
        return self.every(lambda cursor: self.call(sleep_calls.snapshots_page(cursor)))

    def snapshot(self, ref: str) -> SnapshotView:
        """Give one checkpoint."""
        return self.call(sleep_calls.snapshot(ref))

    def delete_snapshot(self, ref: str) -> None:
        """Delete a checkpoint; what others need of it stays until they are gone."""
        self.call(sleep_calls.delete_snapshot(ref))

    def resume_snapshot(self, ref: str, count: int = 1, *, name: str | None = None) -> Sequence[Sandbox]:
        """Make sandboxes that go on where a checkpoint was taken; ``name`` is what their names begin with."""
        copies = self.call(sleep_calls.resume_snapshot(ref, name=name, count=count))
        return [Sandbox(self, view) for view in copies.items]

    def endings(self) -> Sequence[EndingView]:
        """Tell of the sandboxes that were destroyed, the first to end first, without their consoles."""
        return self.every(lambda cursor: self.call(sleep_calls.endings_page(cursor)))

    def ending(self, ref: str) -> EndingView:
        """Tell why a destroyed sandbox ended: by its id, or of those that bore a name the last."""
        return self.call(sleep_calls.ending(ref))

    def machine_templates(self) -> Sequence[MachineTemplateView]:
        """Give the machines kept ready to be cloned."""
        return (self.call(sleep_calls.machine_templates())).items

    def warm_template(self, **shape: Unpack[ShapeOptions]) -> MachineTemplateView:
        """Boot a machine of a shape and keep it ready: not even the first creation has to boot then."""
        return self.call(sleep_calls.warm_template(shape))

    def delete_template(self, ref: str) -> None:
        """Drop a machine kept ready; only administrators may."""
        self.call(sleep_calls.delete_template(ref))

    def create_volume(self, name: str, size_mb: int) -> VolumeView:
        """Make an empty volume of so many MiB with a file system."""
        return self.call(volume_calls.create(name, size_mb))

    def volumes(self) -> Sequence[VolumeView]:
        """Give all volumes, oldest first, and who has them."""
        return self.every(lambda cursor: self.call(volume_calls.page(cursor)))

    def volume(self, ref: str) -> VolumeView:
        """Give one volume."""
        return self.call(volume_calls.get(ref))

    def resize_volume(self, ref: str, size_mb: int) -> VolumeView:
        """Grow a volume that no sandbox has to so many MiB."""
        return self.call(volume_calls.resize(ref, size_mb))

    def clone_volume(self, ref: str, name: str) -> VolumeView:
        """Copy a volume that no sandbox writes to."""
        return self.call(volume_calls.clone(ref, name))

    def delete_volume(self, ref: str) -> None:
        """Delete a volume that no sandbox has, for good."""
        self.call(volume_calls.delete(ref))

    def attach_volume(self, ref: str, volume: str, mount: str, *, read_only: bool = False) -> MountedVolume:
        """Mount a volume in a sandbox: alone and writable, or read-only together with others."""
        return self.call(volume_calls.attach(ref, volume, mount, read_only=read_only))

    def detach_volume(self, ref: str, volume: str) -> None:
        """Unmount a volume and take it out of a sandbox.

        Raises:
            Conflict: something in the sandbox uses it.
        """
        self.call(volume_calls.detach(ref, volume))

    def images(self) -> Sequence[ImageView]:
        """Give the images of the host."""
        return (self.call(calls.images())).items

    def health(self) -> Health:
        """Ask the daemon how it is."""
        return self.call(calls.health())

    @contextlib.contextmanager
    def deaths_told(self, ref: str) -> Iterator[None]:
        """Turn the failure of what needed a sandbox into SandboxDied, where its machine's end is why."""
        try:
            yield
        except (GuestFailed, Conflict) as error:
            cause = self._cause_of_death(ref, news_s=NEWS_S if isinstance(error, GuestFailed) else 0)
            if cause is None:
                raise
            raise SandboxDied(cause, error) from error

    def _cause_of_death(self, ref: str, *, news_s: float) -> ExitCauseView | None:
        deadline_s = time.monotonic() + news_s
        try:
            view = self.call(calls.get(ref))
            while may_be_news(view) and time.monotonic() < deadline_s:
                time.sleep(NEWS_POLL_S)
                view = self.call(calls.get(ref))
        except NotFound:
            with contextlib.suppress(HearthError):
                return (self.ending(ref)).exit_cause
            return None
        except HearthError:
            return None  # the caller has an error to raise already
        return cause_in(view)

    def every(self, page_at: Callable[[str | None], Page[Item]]) -> Sequence[Item]:
        page = page_at(None)
        found = [*page.items]
        while page.next_cursor is not None:
            page = page_at(page.next_cursor)
            found += page.items
        return found


class Sandbox(OwnFigures):
    """A computer of its own.

    As a context manager it is destroyed at the end: ``with Sandbox.create() as sandbox: sandbox.run(["uname", "-a"])``.
    """

    def __init__(self, client: Client, view: SandboxView) -> None:
        self.client = client
        self.view = view

    @classmethod
    def create(cls, client: Client | None = None, **options: Unpack[CreateOptions]) -> Sandbox:
        """Create a sandbox and wait until it runs."""
        return (client or Client()).create(**options)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.destroy()

    @property
    def id(self) -> str:
        return self.view.id

    @property
    def name(self) -> str:
        return self.view.name

    def run(self, cmd: Sequence[str], **options: Unpack[ExecOptions]) -> Result:
        """Run a command to its end; any exit code is a result, ``.check()`` makes it an error."""
        return self.client.run(self.id, cmd, **options)

    def stream(self, cmd: Sequence[str], **options: Unpack[ExecOptions]) -> contextlib.AbstractContextManager[Running]:
        """Start a command: ``with sandbox.stream(["make"]) as running: for output in running: ...``."""
        return self.client.stream(self.id, cmd, **options)

    def detach(self, cmd: Sequence[str], **options: Unpack[DetachOptions]) -> ExecView:
        """Start a command that needs no client; ``client.commands.logs`` gives its output."""
        return self.client.commands.detach(self.id, cmd, **options)

    def execs(self) -> Sequence[ExecView]:
        """Give its commands, oldest first."""
        return self.client.commands.list(self.id)

    def refresh(self) -> Self:
        """Look again: ``view`` is as it was when it was last given."""
        self.view = self.client.call(calls.get(self.id))
        return self

    def update(self, **changes: Unpack[ChangeOptions]) -> Self:
        """Change name, labels, time to live or whether it may sleep; what is not given stays."""
        self.view = self.client.call(sleep_calls.update(self.id, changes))
        return self

    def stop(self) -> Self:
        """Bring it to disk, memory and all; any use wakes it again."""
        self.view = self.client.call(sleep_calls.stop(self.id))
        return self

    def start(self, *, force: bool = False) -> Self:
        """Wake it ahead of its use; ``force`` boots from disk what cannot be woken with its memory."""
        self.view = self.client.call(sleep_calls.start(self.id, force=force))
        return self

    def pause(self) -> Self:
        """Stop its CPUs; any use makes them run again."""
        self.view = self.client.call(sleep_calls.pause(self.id))
        return self

    def resume(self) -> Self:
        """Let its CPUs run again."""
        self.view = self.client.call(sleep_calls.resume(self.id))
        return self

    def fork(self, count: int = 1, *, name: str | None = None) -> Sequence[Sandbox]:
        """Make copies of it, memory and disk as they are now."""
        return self.client.fork(self.id, count, name=name)

    def checkpoint(self, name: str) -> SnapshotView:
        """Keep its memory and disk under a name; ``client.resume_snapshot`` makes sandboxes of that."""
        return self.client.checkpoint(self.id, name)

    def save_image(self, name: str) -> ImageView:
        """Make an image of its disk, to create others of."""
        return self.client.save_image(self.id, name)

    def attach_volume(self, volume: str, mount: str, *, read_only: bool = False) -> MountedVolume:
        """Mount a volume in it: alone and writable, or read-only together with others."""
        return self.client.attach_volume(self.id, volume, mount, read_only=read_only)

    def detach_volume(self, volume: str) -> None:
        """Unmount a volume and take it out."""
        self.client.detach_volume(self.id, volume)

    def destroy(self) -> None:
        """Destroy it and all it holds."""
        self.client.destroy(self.id)
