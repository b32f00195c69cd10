"""Whether a machine that woke is well: it can write its disk, see its processes and, unless it is a copy, start one."""

from __future__ import annotations

import contextlib
import errno
import os

from hearth.agent.spawn import Command, StartFailed, spawn
from hearth.agent.state import Agent

_FULL = (errno.ENOSPC, errno.EDQUOT)


class Unwell(Exception):
    """What is wrong, in words."""


def check_machine(agent: Agent, *, in_full: bool) -> None:
    """Try the root disk and /proc.

    Args:
        in_full: the disk by a write and a sync, and the start of a process, too, which are dear: for a machine that may
            still be given up for its disk. A copy starts its first command a moment later, and says so where it cannot.

    Raises:
        Unwell: one of them fails.
    """
    try:
        if in_full:
            _write_root()
        elif os.statvfs("/").f_flag & os.ST_RDONLY:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
    except OSError as error:
        raise Unwell(f"the root file system: {error.strerror}") from error
    try:
        if agent.doors.proc is None or os.readlink("self", dir_fd=agent.doors.proc) != str(os.getpid()):
            raise Unwell("/proc: not of this machine")
    except OSError as error:
        raise Unwell(f"/proc: {error.strerror}") from error
    if in_full:
        _start_nothing(agent)


def _write_root() -> None:
    path = f"/.hearth-{os.urandom(8).hex()}.tmp"
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno in _FULL:  # full is the sandbox's own affair: the disk answers
            return
        raise
    try:
        with contextlib.suppress(BlockingIOError):
            os.write(descriptor, b"x")
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _FULL:
            raise
    finally:
        os.close(descriptor)
        os.unlink(path)


def _start_nothing(agent: Agent) -> None:
    """Fork a child that fails to execute a program of no name: that it says so shows that it lived.

    No program is run, as the sandbox's root need not have any.
    """
    null = agent.doors.null
    try:
        spawn(Command(argv=[""], environment={}, directory="/"), null, null, null)
    except StartFailed as error:
        if not str(error).endswith(os.strerror(errno.ENOENT)):
            raise Unwell(f"starting a process: {error}") from error
