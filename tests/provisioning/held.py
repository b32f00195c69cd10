"""A real qemu-img that waits where a test wants it to, for daemons in a mount namespace of their own."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

WAIT_S = 120.0
PAUSE_S = 0.01
TOOL = "/usr/bin/qemu-img"
SCRIPT = """#!/bin/sh
[ -p "/opt/hold-$1" ] && read _ < "/opt/hold-$1"
exec /opt/qemu-img "$@"
"""
"""Every enclosure shows /opt and /usr."""
COVER = 'mount --bind "$0" /opt && mount --bind "$0/waiting" ' + TOOL + ' && exec "$@"'


class HeldTool:
    """The tool in a directory, with gates in front of its commands."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        shutil.copy(TOOL, directory / "qemu-img")
        (directory / "waiting").write_text(SCRIPT)
        (directory / "waiting").chmod(0o755)

    @property
    def prefix(self) -> Sequence[str]:
        """What has to stand before a daemon's command."""
        return ("unshare", "--mount", "sh", "-c", COVER, str(self._directory))

    @contextlib.contextmanager
    def holding(self, command: str) -> Iterator[Gate]:
        """Let ``qemu-img COMMAND`` wait until the end of the context, or its release."""
        gate = Gate(self._directory / f"hold-{command}")
        try:
            yield gate
        finally:
            gate.release()


class Gate:
    """A named pipe that the tool opens and we do not write to."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = -1
        os.mkfifo(path)

    def wait_until_reached(self) -> None:
        """Wait until somebody stands before it: only then is there a reader."""
        deadline_s = time.monotonic() + WAIT_S
        while self._descriptor < 0:
            try:
                self._descriptor = os.open(self._path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            except OSError as error:
                assert error.errno == errno.ENXIO, error
                assert time.monotonic() < deadline_s, f"nobody came to {self._path.name}"
                time.sleep(PAUSE_S)

    def release(self) -> None:
        """Let everybody pass; twice is fine."""
        self._path.unlink(missing_ok=True)
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def tools_of(pid: int) -> list[str]:
    """Tell of the living descendants of a process that are qemu-img or what stands beside one."""
    parents: dict[int, int] = {}
    tools: dict[int, str] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            text = (entry / "stat").read_text(errors="replace")
            name, rest = text.partition("(")[2].rpartition(")")[::2]
            state, parent = rest.split()[:2]
            if state not in "ZX":
                parents[int(entry.name)] = int(parent)
                tools[int(entry.name)] = name
    found = []
    for child, name in tools.items():
        above = parents[child]
        while above in parents and above != pid:
            above = parents[above]
        if above == pid and name.startswith(("qemu-img", "waiting")):
            found.append(f"{child} {name}")
    return found
