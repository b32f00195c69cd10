"""Starts the sandbox's processes, each the leader of a process group of its own.

``_posixsubprocess.fork_exec`` is what ``subprocess`` stands on: one vfork-and-exec that changes directory and reports
what failed. ``os.posix_spawn`` has no directory and ``subprocess`` costs 1.4 times a bare spawn, see
docs/decisions/agent-threads.md for the figures.
"""

from __future__ import annotations

import _posixsubprocess
import contextlib
import errno
import fcntl
import os
import signal
import termios
from collections.abc import Callable, Mapping, Sequence

from hearth.agent.accounts import Account
from hearth.agent.shield import SHIELD
from hearth.wire.record import Record

_MAX_REPORT_BYTES = 4096
_fork_exec: Callable[..., int] = _posixsubprocess.fork_exec  # no two Pythons' stubs agree on its arguments


class StartFailed(Exception):
    """A process could not be started; the text begins with ``start: `` and ends with the OS's words."""

    def __init__(self, what: str, words: str) -> None:
        super().__init__(f"start: {what}: {words}")


class Command(Record):
    """What to run. ``environment`` is complete; ``account`` is None to stay whoever the agent is.

    ``checks_directory`` has the account's own right to the directory asked for, and not only the agent's.
    """

    argv: Sequence[str]
    environment: Mapping[str, str]
    directory: str
    account: Account | None = None
    checks_directory: bool = False


def spawn(
    command: Command, stdin: int, stdout: int, stderr: int, *, session: bool = False, terminal: bool = False
) -> int:
    """Start a process on three descriptors, which stay the caller's, and return its pid once it has been executed.

    It leads a process group, with ``session`` a session too, with ``terminal`` one whose controlling terminal is
    ``stdin``.

    Raises:
        StartFailed: the program, its directory or a right to them is missing.
    """
    try:
        arguments = [os.fsencode(word) for word in command.argv]
        environment = [os.fsencode(f"{name}={value}") for name, value in command.environment.items()]
    except UnicodeError as error:
        raise StartFailed("argument or variable", "not encodable") from error
    candidates = _candidates(arguments[0], os.fsencode(command.environment.get("PATH", "")))
    account = command.account
    report_read, report_write = os.pipe()
    try:
        try:
            with SHIELD.lowered():
                pid: int = _fork_exec(
                    arguments, candidates, True, (report_write,), command.directory, environment,
                    stdin, -1, -1, stdout, -1, stderr, report_read, report_write,
                    True, session or terminal, -1 if session or terminal else 0,
                    account.gid if account else None, list(account.groups) if account else None,
                    account.uid if account else None, -1,
                    _before_exec(command, terminal=terminal), True,
                )  # fmt: skip
        except OSError as error:
            raise StartFailed(_shown(command.argv[0]), error.strerror or "failed") from error
        finally:
            os.close(report_write)
        report = b""
        while part := os.read(report_read, _MAX_REPORT_BYTES):
            report += part
    finally:
        os.close(report_read)
    if report:
        os.waitpid(pid, 0)
        raise _failure(command, report)
    return pid


def end_group(pid: int, number: int = signal.SIGKILL) -> None:
    """Send a signal to the group a spawned process leads.

    Only before its exit status was collected: until then the number cannot become another's.
    """
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


def exit_code(status: int) -> int:
    """Give the wire's exit code for a wait status: 0-255, or 128+n when signal n ended the process."""
    code = os.waitstatus_to_exitcode(status)
    return 128 - code if code < 0 else code


def _candidates(program: bytes, path: bytes) -> list[bytes]:
    if b"/" in program or not program:
        return [program]
    return [os.path.join(directory or b".", program) for directory in path.split(b":")]


def _before_exec(command: Command, *, terminal: bool) -> Callable[[], None] | None:
    """Give what the child does last, as the account it has become; it costs a whole fork where there was a vfork."""
    checks_directory = command.checks_directory and command.account is not None
    if not terminal and not checks_directory:
        return None

    def run() -> None:
        if checks_directory:
            os.chdir(command.directory)
        if terminal:
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    return run


def _failure(command: Command, report: bytes) -> StartFailed:
    """Read what the child wrote before it ended: ``OSError:<errno in hex>:<stage>``."""
    kind, number, stage = report.split(b":", 2)
    if kind == b"SubprocessError" and command.checks_directory:  # the agent could enter it, the account cannot
        return StartFailed(f"directory {_shown(command.directory)}", os.strerror(errno.EACCES))
    words = os.strerror(int(number, 16)) if number else "failed"
    if stage == b"noexec":
        return StartFailed(f"directory {_shown(command.directory)}", words)
    return StartFailed(_shown(command.argv[0]), words)


def _shown(text: str) -> str:
    return os.fsencode(text).decode("utf-8", "replace")[:200]
