"""Long-lived children (VMMs): started with posix_spawn, watched through a pidfd, found again by a later daemon.

posix_spawn, because forking a fat daemon copies its page tables first; a pidfd, because a number can be reused.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import functools
import os
import select
import signal
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog

from hearth.errors import HostUnfit
from hearth.host import kernel
from hearth.host.process import SMALL_ENVIRONMENT

log = structlog.get_logger(__name__)

IGNORED_BY_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ)
"""Python starts with these ignored, and ignored signals survive exec."""
NOT_A_PROGRAM = (errno.ENOENT, errno.EACCES, errno.ENOEXEC)


@dataclass(frozen=True, kw_only=True)
class Exit:
    """How a process ended: its ``status``, or the ``signal`` that ended it; both None when it was not ours to ask."""

    status: int | None = None
    signal: int | None = None

    def __str__(self) -> str:
        if self.signal is not None:
            return f"ended by {signal_name(self.signal)}"
        return "ended, its status is not known" if self.status is None else f"ended with status {self.status}"


@dataclass(frozen=True, kw_only=True)
class Identity:
    """What makes a process that process for good: its number, when it began (clock ticks since boot) and which boot."""

    pid: int
    started_ticks: int
    boot_id: str


class Process(ABC):
    """A process watched through a pidfd, which is closed when its end has been seen or by ``close``."""

    def __init__(self, identity: Identity, pidfd: int) -> None:
        self.identity = identity
        self._pidfd = pidfd
        self._exit: asyncio.Future[Exit] | None = None

    @property
    def pid(self) -> int:
        return self.identity.pid

    async def wait(self) -> Exit:
        """Wait for the end and tell how it came; any number of tasks may wait, and be cancelled one by one."""
        if self._exit is None:
            loop = asyncio.get_running_loop()
            self._exit = loop.create_future()
            loop.add_reader(self._pidfd, self._ended)
        return await asyncio.shield(self._exit)

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal; a process that has ended is fine."""
        if self._pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)

    def close(self) -> None:
        """Stop watching and leave the process to itself; whoever waits is cancelled."""
        if self._pidfd < 0:
            return
        if self._exit is not None:
            self._exit.get_loop().remove_reader(self._pidfd)
            self._exit.cancel()
        os.close(self._pidfd)
        self._pidfd = -1

    def _ended(self) -> None:
        if self._exit is None or self._exit.done():
            raise AssertionError("the pidfd is watched only while somebody waits for the first end")
        self._exit.get_loop().remove_reader(self._pidfd)
        self._exit.set_result(self._collect())
        os.close(self._pidfd)
        self._pidfd = -1

    @abstractmethod
    def _collect(self) -> Exit:
        """Tell how the process ended; called once, after it did."""


class Child(Process):
    """A process we started: its status is ours to collect, and nobody else may collect it."""

    def _collect(self) -> Exit:
        try:
            result = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED | os.WNOHANG)
        except ChildProcessError:  # somebody waited for just any child; those who wait here must still wake up
            return Exit()
        if result is None:
            raise AssertionError("a readable pidfd means an ended process")
        if result.si_code == os.CLD_EXITED:
            return Exit(status=result.si_status)
        return Exit(signal=result.si_status)


class Adopted(Process):
    """A process an earlier daemon started: its end can be seen, its status cannot."""

    def _collect(self) -> Exit:
        return Exit()


def spawn(
    argv: Sequence[str],
    *,
    descriptors: Mapping[int, int],
    output: int,
    environment: Mapping[str, str] | None = None,
    session: bool = True,
) -> Child:
    """Start a program and return when it runs; blocking for about 1 ms.

    It reads /dev/null, writes stdout and stderr to ``output``, gets the descriptors named here and no others, and
    lives in the network namespace of the calling thread (see ``namespaces.enter``).

    Args:
        argv: program, looked up on PATH, and arguments.
        descriptors: the child's descriptor number (3 or more, as it stands in ``argv``) → ours, which stays open here.
        output: descriptor of a log file.
        environment: added to the small fixed environment of ``process.run``.
        session: give it a session of its own, so that a Ctrl-C at the daemon's terminal does not reach it.

    Raises:
        HostUnfit: the program is missing or may not be executed.
    """
    log.debug("spawn", argv=list(argv), descriptors=dict(descriptors))
    kernel.seal_descriptors()
    with contextlib.ExitStack() as stack:
        safe = stack.enter_context(_copies_above({0: None, 1: output, 2: output, **descriptors}))
        actions: list[tuple[int, int, int] | tuple[int, int, str, int, int]] = [
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)
        ]
        actions += [(os.POSIX_SPAWN_DUP2, ours, theirs) for theirs, ours in safe.items()]
        try:
            pid = os.posix_spawnp(
                argv[0],
                list(argv),
                {**SMALL_ENVIRONMENT, **(environment or {})},
                file_actions=actions,
                setsid=session,
                setsigmask=(),
                setsigdef=IGNORED_BY_PYTHON,
            )
        except OSError as error:
            if error.errno not in NOT_A_PROGRAM:
                raise
            raise HostUnfit(
                f"{argv[0]} cannot be started",
                details=str(error),
                resolution="run 'make setup' or install its package",
            ) from error
    pidfd = os.pidfd_open(pid)
    identity = identify(pid)
    if identity is None:
        raise AssertionError("a child stays in /proc until it is collected")
    return Child(identity, pidfd)


def adopt(identity: Identity) -> Adopted | None:
    """Watch a process started by somebody else; None when it has ended, even if its number was given to another."""
    try:
        pidfd = os.pidfd_open(identity.pid)
    except OSError:
        return None
    # Compared after opening: a process that is still the right one now held its number at the opening too.
    if identify(identity.pid) != identity or _has_ended(pidfd):
        os.close(pidfd)
        return None
    return Adopted(identity, pidfd)


def _has_ended(pidfd: int) -> bool:
    """Tell whether the process is dead already, perhaps not yet buried by its parent (pidfd_open(2))."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))


def identify(pid: int) -> Identity | None:
    """Tell who has this number now; None when nobody has (proc_pid_stat(5), field 22)."""
    try:
        text = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    after_name = text[text.rindex(b")") + 2 :].split()
    return Identity(pid=pid, started_ticks=int(after_name[19]), boot_id=_boot_id())


@functools.cache
def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def setpriv_prefix(uid: int, gid: int, *, groups: Sequence[int] = ()) -> list[str]:
    """Give the words to put before a command so that it runs as another user without any way back (setpriv(1)).

    Args:
        uid, gid: numbers; both must not be 0.
        groups: supplementary groups, for example the one that may open /dev/kvm.
    """
    if uid == 0 or gid == 0:
        raise AssertionError("dropping privileges to root is none")
    members = ["--groups", ",".join(map(str, groups))] if groups else ["--clear-groups"]
    return [
        "setpriv",
        *("--reuid", str(uid), "--regid", str(gid)),
        *members,
        *("--no-new-privs", "--inh-caps=-all", "--ambient-caps=-all", "--bounding-set=-all"),
        "--",
    ]


def signal_name(number: int) -> str:
    """Name a signal for people; numbers without a name stay numbers."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


@contextlib.contextmanager
def _copies_above(wanted: Mapping[int, int | None]) -> Iterator[dict[int, int]]:
    """Copy our descriptors above all numbers the child will use: no dup2 can then overwrite one still to be copied."""
    floor = max(wanted) + 1
    copies: dict[int, int] = {}
    try:
        for theirs, ours in wanted.items():
            if ours is not None:
                copies[theirs] = fcntl.fcntl(ours, fcntl.F_DUPFD_CLOEXEC, floor)
        yield copies
    finally:
        for copy in copies.values():
            os.close(copy)
