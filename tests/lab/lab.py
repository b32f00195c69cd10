"""A running lab: commands as root, the working tree's tests inside, its services by forwarded ports."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from tests.lab import replay, sources
from tests.lab.warm import SETTINGS, lab_daemon, warm_directory

from hearth.sdk.client import Client, Sandbox
from hearth.sdk.results import Result

VOLUME_GROUP = "data"
BUCKET = "images"
PORTS = {"s3": 7070, "postgresql": 5432, "redis": 6379, "provisioner": 8080}
"""Where services listen on the lab's loopback."""
COMMAND_S = 120.0
TESTS_S = 840.0
"""For some that take one or two minutes; a busy host makes more of them."""


def ignore(_line: str) -> None:
    """Nobody listens."""


@dataclass(frozen=True, kw_only=True)
class Lab:
    """A sandbox with a volume group ``data`` and services on its loopback."""

    client: Client
    sandbox: Sandbox
    say: Callable[[str], None] = ignore
    wanted: Sequence[str] = sources.WANTED
    """What of the working tree is brought in: below a provisioner that runs, the product stays as it is."""
    _synced: list[bool] = field(default_factory=list)

    def run(self, *words: str, timeout_s: float = COMMAND_S, stdin: bytes | None = None) -> str:
        """Run a command as root and give its output.

        Raises:
            CommandFailed: its status is not 0.
        """
        return self.tried(*words, timeout_s=timeout_s, stdin=stdin).check().stdout

    def tried(
        self,
        *words: str,
        timeout_s: float = COMMAND_S,
        stdin: bytes | None = None,
        env: Mapping[str, str] | None = None,
    ) -> Result:
        """Run a command as root; any status is a result."""
        return self.sandbox.run(words, user="root", timeout_sec=timeout_s, stdin=stdin, env=env or {})

    def shell(self, script: str, timeout_s: float = COMMAND_S) -> str:
        """Run a shell script as root and give its output."""
        return self.run("sh", "-euc", script, timeout_s=timeout_s)

    def sync(self) -> None:
        """Bring the working tree's sources in, once."""
        if not self._synced:
            sources.put(self.sandbox, self.wanted)
            self._synced.append(True)

    def pytest(self, *words: str, env: Mapping[str, str] | None = None, timeout_s: float = TESTS_S) -> replay.Outcomes:
        """Run tests of the working tree inside; ``words`` are pytest's own: files, ``-k``, ``-x`` and so on.

        ``TEST_LVM_VG``, ``TEST_LIBVIRT_URI`` and the like name the lab's own services there.
        """
        self.sync()
        reports = f"/tmp/reports-{secrets.token_hex(4)}"
        settings = {**self.settings(inside=True), "HEARTH_LAB": "1", replay.REPORTS: reports, **(env or {})}
        argv = ["lab-python", "-m", "pytest", "-p", "tests.lab.replay", "-p", "no:cacheprovider", "-v"]
        argv += ["-o", f"timeout={timeout_s:g}", *words]
        # Killed by its own timeout it still tells what it had done until then.
        argv = ["timeout", "--kill-after=10", str(timeout_s), *argv]
        output, began_s = [], time.monotonic()
        with self.sandbox.stream(argv, user="root", env=settings, timeout_sec=timeout_s + 30) as running:
            for piece in running:
                output.append(piece.data.decode(errors="replace"))
                self.say(f"{time.monotonic() - began_s:.1f} s: {output[-1].rstrip()}")
        told = self.tried("cat", reports).stdout
        return replay.read(told, running.exit_code, "".join(output))

    @cached_property
    def password(self) -> str:
        """Of all services; made with the lab's template."""
        return self.run("sed", "-n", "s/^LAB_PASSWORD=//p", SETTINGS).strip()

    def settings(self, *, inside: bool, at: Callable[[str], int] = PORTS.__getitem__) -> dict[str, str]:
        """Give the variables that point tests at the lab's services.

        Args:
            inside: for programs in the lab, which reach its volume group and its libvirt, too.
            at: the port on loopback where a service of ``PORTS`` is reached.
        """
        given = {
            "TEST_MINIO_ENDPOINT": f"http://127.0.0.1:{at('s3')}",
            "TEST_MINIO_ACCESS_KEY": "lab",
            "TEST_MINIO_SECRET_KEY": self.password,
            "TEST_POSTGRES_DSN": f"postgresql://hearth:{self.password}@127.0.0.1:{at('postgresql')}/postgres",
            "TEST_REDIS_URL": f"redis://:{self.password}@127.0.0.1:{at('redis')}/0",
        }
        if inside:
            given |= {"TEST_LVM_VG": VOLUME_GROUP, "TEST_LIBVIRT_URI": "qemu:///system"}
        return given

    def forward(self, service: str, *, local: int = 0) -> contextlib.AbstractContextManager[tuple[str, int]]:
        """Listen on the host's loopback for a service of ``PORTS``, as long as the context lasts; gives where."""
        return self.client.ports.forward(self.sandbox.id, PORTS[service], local=local)


@contextlib.contextmanager
def running_lab(say: Callable[[str], None]) -> Iterator[Lab]:
    """Give a lab of our own, which goes with the context; the first time on a host it takes minutes to make."""
    with lab_daemon(warm_directory(say)) as (_, client, sandbox):
        yield Lab(client=client, sandbox=sandbox, say=say)
