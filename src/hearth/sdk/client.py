# Made of async_client.py by 'make twins': change that.
"""``Client``: what sandboxes do and are; more of it is in ``core``, ``keeping``, ``volumes``."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Unpack

from hearth.api.limits import MAX_LIST_LIMIT
from hearth.api.net_schemas import EgressView
from hearth.api.schemas import Health
from hearth.sdk import calls, sleep_calls
from hearth.sdk.calls import CreateOptions, ExecOptions
from hearth.sdk.commands import Commands
from hearth.sdk.keeping import Keeping
from hearth.sdk.results import Result, result_of
from hearth.sdk.running import Running
from hearth.sdk.sandbox import Sandbox
from hearth.sdk.sleep_calls import ChangeOptions
from hearth.sdk.stats import Figures
from hearth.sdk.volumes import Volumes
from hearth.sdk.with_events import WithEvents

if TYPE_CHECKING:
    from hearth.sdk.files import Files
    from hearth.sdk.images import Images
    from hearth.sdk.ports import Ports
    from hearth.sdk.provisioning import Provisioning
    from hearth.sdk.secrets import Secrets
    from hearth.sdk.sessions import Sessions
    from hearth.sdk.templates import Templates
    from hearth.sdk.users import Users

__all__ = ["Client", "Sandbox"]


class Client(Keeping, Volumes, Figures, WithEvents):
    """A daemon. Without arguments it is found by HEARTH_URL and HEARTH_TOKEN, else in the data directory.

    Sandboxes, checkpoints and the like are named by id or name. A sandbox that sleeps is woken by whatever uses it.
    """

    @property
    def ports(self) -> Ports:
        """What listens in sandboxes, what is published, and ways to it.

        >>> 3999 in [port.port for port in client.ports.of("web")]
        False
        """
        found: Ports = import_module("hearth.sdk.ports").Ports(self, self._transport.endpoint)
        return found

    @property
    def users(self) -> Users:
        """Users and their keys.

        >>> client.users.get("me").admin
        True
        """
        found: Users = import_module("hearth.sdk.users").Users(self)
        return found

    @property
    def secrets(self) -> Secrets:
        """The caller's secrets.

        >>> [secret.name for secret in client.secrets.every()]
        []
        """
        found: Secrets = import_module("hearth.sdk.secrets").Secrets(self)
        return found

    @property
    def images(self) -> Images:
        """What sandboxes are made of.

        >>> "debian" in [image.name for image in client.images.list()]
        True
        """
        found: Images = import_module("hearth.sdk.images").Images(self, self._transport)
        return found

    @property
    def provisioning(self) -> Provisioning:
        """Volumes that are filled from golden images; for administrators.

        >>> [volume.volume_name for volume in client.provisioning.volumes()]
        []
        """
        module = import_module("hearth.sdk.provisioning")
        found: Provisioning = module.Provisioning(self, self._transport)
        return found

    @property
    def templates(self) -> Templates:
        """The caller's templates: descriptions of sandboxes to come.

        >>> [template.name for template in client.templates.every()]
        []
        """
        found: Templates = import_module("hearth.sdk.templates").Templates(self)
        return found

    @property
    def commands(self) -> Commands:
        """What runs and ran in sandboxes: start, list, follow, feed, kill.

        >>> started = client.commands.detach("web", ["true"])
        >>> started.cmd
        ['true']
        """
        return Commands(self, self._transport)

    def files(self, ref: str) -> Files:
        """Give the files of a sandbox.

        >>> client.files("web").exists("/etc/passwd")
        True
        """
        module = import_module("hearth.sdk.files")
        found: Files = module.Files(self, self._transport, ref)
        return found

    def sessions(self, ref: str) -> Sessions:
        """Give the sessions of a sandbox: terminals and piped ones.

        >>> with client.sessions("web").terminal(cmd=["echo", "hello"]) as terminal:
        ...     b"".join([data for data in terminal])
        b'hello\\r\\n'
        """
        module = import_module("hearth.sdk.sessions")
        found: Sessions = module.Sessions(self, self._transport, ref)
        return found

    def create(self, **options: Unpack[CreateOptions]) -> Sandbox:
        """Create a sandbox and wait until it runs; an existing one of this name is given as it is.

        >>> with client.create(name="made", labels={"team": "a"}, env={"MODE": "test"}) as made:
        ...     made.run(["printenv", "MODE"]).stdout
        'test\\n'
        """
        return Sandbox(self, self.call(calls.create(options)))

    def get(self, ref: str) -> Sandbox:
        """Give the sandbox with this id or name.

        >>> client.get("web").view.state
        'running'
        """
        return Sandbox(self, self.call(calls.get(ref)))

    def list(self, labels: Mapping[str, str] | None = None) -> Sequence[Sandbox]:
        """Give all sandboxes that carry all of ``labels``; none is woken.

        >>> [each.name for each in client.list()]
        ['web']
        >>> [each.name for each in client.list({"team": "none"})]
        []
        """
        views = self.every(
            lambda cursor: self.call(calls.list_page(labels=labels or {}, cursor=cursor, limit=MAX_LIST_LIMIT))
        )
        return [Sandbox(self, view) for view in views]

    def destroy(self, ref: str) -> None:
        """Destroy a sandbox and all it holds; ``ending`` tells of it afterwards.

        >>> made = client.create(name="short-lived")
        >>> client.destroy("short-lived")
        """
        self.call(calls.destroy(ref))

    def run(self, ref: str, cmd: Sequence[str], **options: Unpack[ExecOptions]) -> Result:
        """Run a command to its end; any exit code is a result.

        Raises:
            SandboxDied: the sandbox's machine ended; ``cause`` tells why.

        >>> result = client.run("web", ["sh", "-c", "echo done; exit 3"])
        >>> result.stdout, result.exit_code
        ('done\\n', 3)
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

        >>> with client.stream("web", ["sh", "-c", "echo one; echo two"]) as running:
        ...     b"".join([output.data for output in running])
        ...     running.exit_code
        b'one\\ntwo\\n'
        0
        """
        linger_s = float(options.get("linger_sec", calls.LINGER_S))
        running = Running(self, self._transport, ref, linger_s=linger_s, attach=True)
        try:
            running.open(calls.stream(ref, cmd, options))
            yield running
        finally:
            running.close()

    def update(self, ref: str, **changes: Unpack[ChangeOptions]) -> Sandbox:
        """Change name, labels, time to live, network or whether it may sleep; the rest stays. It is not woken.

        >>> client.update("web", labels_add={"team": "b"}).view.labels
        {'team': 'b'}
        >>> client.update("web", labels_remove=["team"]).view.labels
        {}
        """
        return Sandbox(self, self.call(sleep_calls.update(ref, changes)))

    def egress(self, ref: str) -> EgressView:
        """Tell what a sandbox tried to reach, what refused it, and the shortest policy for what an audit saw.

        >>> client.egress("web").attempts
        []
        """
        return self.call(sleep_calls.egress(ref))

    def stop(self, ref: str) -> Sandbox:
        """Bring a sandbox to disk, memory and all, and end its process; what runs in it goes on after the next use.

        Raises:
            Conflict: its disk is too full, or the engine's machines do not sleep.

        >>> client.stop("web").view.heat
        'cold'
        """
        return Sandbox(self, self.call(sleep_calls.stop(ref)))

    def start(self, ref: str, *, force: bool = False) -> Sandbox:
        """Wake a sandbox ahead of its use. ``force`` boots from disk what cannot be woken with its memory.

        Raises:
            Conflict: it cannot be woken without ``force``.

        >>> client.start("web").view.heat
        'hot'
        """
        return Sandbox(self, self.call(sleep_calls.start(ref, force=force)))

    def pause(self, ref: str) -> Sandbox:
        """Stop a sandbox's CPUs; its memory stays where it is.

        >>> client.pause("web").view.heat
        'warm'
        """
        return Sandbox(self, self.call(sleep_calls.pause(ref)))

    def resume(self, ref: str) -> Sandbox:
        """Let a paused sandbox's CPUs run again.

        >>> paused = client.pause("web")
        >>> client.resume("web").view.heat
        'hot'
        """
        return Sandbox(self, self.call(sleep_calls.resume(ref)))

    def fork(self, ref: str, count: int = 1, *, name: str | None = None) -> Sequence[Sandbox]:
        """Make copies of a living sandbox, memory and disk as they are now; ``name`` is what their names begin with.

        >>> copies = client.fork("web", 2, name="try")
        >>> len(copies), {copy.view.parent for copy in copies} == {client.get("web").id}
        (2, True)
        >>> for copy in copies:
        ...     copy.destroy()
        """
        with self.deaths_told(ref):
            copies = self.call(sleep_calls.fork(ref, name=name, count=count))
        return [Sandbox(self, view) for view in copies.items]

    def resume_snapshot(self, ref: str, count: int = 1, *, name: str | None = None) -> Sequence[Sandbox]:
        """Make sandboxes that go on where a checkpoint was taken; ``name`` is what their names begin with.

        >>> kept = client.checkpoint("web", "ready-to-go")
        >>> [again] = client.resume_snapshot("ready-to-go")
        >>> again.run(["echo", "on it goes"]).stdout
        'on it goes\\n'
        >>> again.destroy()
        >>> client.delete_snapshot("ready-to-go")
        """
        copies = self.call(sleep_calls.resume_snapshot(ref, name=name, count=count))
        return [Sandbox(self, view) for view in copies.items]

    def health(self) -> Health:
        """Ask the daemon how it is.

        >>> client.health().status
        'healthy'
        """
        return self.call(calls.health())
