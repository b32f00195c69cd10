"""What a process has used of this host: time of its CPUs, room on a disk; read where the kernel keeps it."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

PROC = Path("/proc")
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
BLOCK_BYTES = 512
"""Of st_blocks, whatever the file system's own are (stat(2))."""
USER_TIME, OWN_AND_CHILDREN = 11, 4
"""Fields 14 to 17 of /proc/PID/stat, counted from behind the command's name: user and system time of the process with
all its threads, and of its children that have ended and were waited for (proc_pid_stat(5))."""


def cpu_s(pid: int) -> float:
    """Tell how long a process, its threads and its ended children ran, in seconds, to a hundredth.

    A VMM's virtual CPUs are threads of it: what the guest used is in it, and what the VMM did for the guest.

    Raises:
        OSError: it is gone.
    """
    fields = (PROC / str(pid) / "stat").read_bytes().rpartition(b") ")[2].split()
    return sum(map(int, fields[USER_TIME : USER_TIME + OWN_AND_CHILDREN])) / TICKS_PER_S


def allocated_bytes(directory: Path) -> int:
    """Add up what the files below a directory take on the disk; 0 when there is no such directory.

    Holes count nothing; what several files share (reflinks) counts for each. Links are not followed.
    """
    total = 0
    with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(directory) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):  # it went at this moment
                if entry.is_dir(follow_symlinks=False):
                    total += allocated_bytes(Path(entry.path))
                total += entry.stat(follow_symlinks=False).st_blocks * BLOCK_BYTES
    return total
