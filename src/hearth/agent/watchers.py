"""Tells programs of the sandbox that they live in another machine now, so that they draw new random numbers.

``/run/hearth/generation`` holds the generation's number and the unix time it began. A program that wants to be woken
makes the file ``/run/hearth/watchers/PID``, which holds the number of a signal. Whoever owns that file must own the
process: nobody has another's program signalled.
"""

from __future__ import annotations

import contextlib
import os
import signal
import stat

from hearth.agent.files.writing import AtomicWrite
from hearth.agent.procfs import read_bytes
from hearth.agent.state import Agent

DIRECTORY = "/run/hearth"
WATCHERS = f"{DIRECTORY}/watchers"
MAX_WATCHERS = 4096
"""How many registrations are looked at; anybody in the sandbox can make as many as memory holds."""
_MAX_PID = 4_194_304
_MAX_SIGNAL = 64
_MAX_BYTES = 16


def announce(agent: Agent, generation: int, unix_time_s: int) -> None:
    """Write the generation file, for whom there is a /run.

    Raises:
        OSError, Refused: it cannot be written.
    """
    if not os.path.isdir("/run"):
        return
    if not os.path.isdir(WATCHERS):
        for path, mode in ((DIRECTORY, 0o755), (WATCHERS, 0o1777)):
            with contextlib.suppress(FileExistsError):
                os.mkdir(path)
                os.chmod(path, mode)
    content = f"{generation} {unix_time_s}\n".encode()
    with AtomicWrite(agent, f"{DIRECTORY}/generation", 0, 0o644, follow=False, durable=False) as file:
        file.write(content)
        file.commit()


def signal_watchers(proc: int, directory: str = WATCHERS) -> int:
    """Signal every program that asked for it and give their number; registrations of ended ones are removed."""
    signalled = 0
    try:
        watchers = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return 0
    try:
        with os.scandir(watchers) as entries:
            names = [entry.name for entry, _ in zip(entries, range(MAX_WATCHERS), strict=False)]
        for name in names:
            if not (name.isascii() and name.isdigit() and len(name) <= len(str(_MAX_PID))):
                continue
            pid = int(name)
            if 1 < pid <= _MAX_PID and pid != os.getpid():
                with contextlib.suppress(OSError, ValueError):
                    signalled += _signal(proc, watchers, name, pid)
    finally:
        os.close(watchers)
    return signalled


def _signal(proc: int, watchers: int, name: str, pid: int) -> bool:
    """Signal one program if its registration is in order.

    Raises:
        OSError, ValueError: it is not; there is nobody to tell.
    """
    try:
        process = os.pidfd_open(pid)  # from here on the number cannot become another's unnoticed
    except ProcessLookupError:
        os.unlink(name, dir_fd=watchers)
        return False
    try:
        registration = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=watchers)
        try:
            facts = os.fstat(registration)
            text = os.read(registration, _MAX_BYTES) if stat.S_ISREG(facts.st_mode) else b""
        finally:
            os.close(registration)
        number = int(text)
        if not 1 <= number <= _MAX_SIGNAL or facts.st_uid not in _owners(proc, pid):
            return False
        signal.pidfd_send_signal(process, number)
    finally:
        os.close(process)
    return True


def _owners(proc: int, pid: int) -> set[int]:
    """Give the users who may signal a process by kill(2): its real and saved one, and root."""
    for line in read_bytes(proc, f"{pid}/status").splitlines():
        if line.startswith(b"Uid:"):
            real, _, saved, _ = (int(word) for word in line.split()[1:])
            return {real, saved, 0}
    return set()
