"""New SSH host keys for a machine that has become another one; a root without keys stays without."""

from __future__ import annotations

import contextlib
import errno
import os
import signal

from hearth.agent.procfs import read_bytes
from hearth.agent.state import DEFAULT_PATH, Agent
from hearth.agent.tool import run_tool

DIRECTORY = "/etc/ssh"
KEYGEN_TIMEOUT_S = 60.0
_PID_FILE = "/run/sshd.pid"
_MAX_PID = 4_194_304


def renew_host_keys(agent: Agent) -> None:
    """Remove the host keys, make new ones where the root has ``ssh-keygen``, and have a running sshd read them.

    Raises:
        OSError: a key could not be removed, or no new one made.
        StartFailed: ssh-keygen could not be started.
    """
    try:
        directory = os.open(DIRECTORY, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return
    try:
        keys = [name for name in os.listdir(directory) if name.startswith("ssh_host_") and "key" in name]
        for name in keys:
            os.unlink(name, dir_fd=directory)
    finally:
        os.close(directory)
    if not keys:
        return
    program = _find("ssh-keygen")
    if program is not None and (code := run_tool(agent, [program, "-A"], KEYGEN_TIMEOUT_S)) != 0:
        raise OSError(errno.EIO, f"ssh-keygen -A ended with {code}")
    _reload_server(agent)


def _find(name: str) -> str | None:
    for directory in DEFAULT_PATH.split(":"):
        path = os.path.join(directory, name)
        if os.path.isfile(path) and os.access(path, os.X_OK):
            return path
    return None


def _reload_server(agent: Agent) -> None:
    """Send SIGHUP to what the pid file names, if that is an sshd and neither init nor this agent."""
    if agent.doors.proc is None:
        return
    with contextlib.suppress(OSError, ValueError):
        descriptor = os.open(_PID_FILE, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            pid = int(os.read(descriptor, 16))
        finally:
            os.close(descriptor)
        if 1 < pid <= _MAX_PID and pid != os.getpid() and read_bytes(agent.doors.proc, f"{pid}/comm") == b"sshd\n":
            os.kill(pid, signal.SIGHUP)
