"""Finding processes that an earlier daemon started, by a word of their command line that nobody else uses."""

from __future__ import annotations

import contextlib
import itertools
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

PROC = Path("/proc")
EXEC_LOOKS, EXEC_PAUSE_S = 50, 0.001
"""How often, and after how long, a process that shows no words yet is looked at again."""


def find_by_arguments(words: Sequence[str]) -> list[int]:
    """Give the process ids whose command line holds ``words`` in a row; vanished processes are passed over."""
    wanted = b"\0" + b"\0".join(os.fsencode(word) for word in words) + b"\0"
    return sorted(pid for pid, line in _command_lines() if wanted in b"\0" + line)


def words_after(option: str, *, beginning: str) -> set[str]:
    """Give the words that follow ``option`` on any command line, those that have this ``beginning``."""
    found: set[str] = set()
    for _, line in _command_lines():
        words = [os.fsdecode(word) for word in line.split(b"\0")]
        found |= {value for word, value in itertools.pairwise(words) if word == option and value.startswith(beginning)}
    return found


def _command_lines() -> Iterator[tuple[int, bytes]]:
    for entry in PROC.iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):  # it has ended
                yield int(entry.name), _command_line(entry)


def _command_line(process: Path) -> bytes:
    """Read a process's words, NUL after each; b"" for the kernel's threads, zombies and those that hide theirs.

    posix_spawn returns when the child has its new memory; its words are there a moment later. Who has a program and no
    words is looked at again, or a machine removed just after its launch would be missed and live on.
    """
    for _ in range(EXEC_LOOKS):
        line = (process / "cmdline").read_bytes()
        if line or not _has_program(process):
            return line
        time.sleep(EXEC_PAUSE_S)
    return b""


def _has_program(process: Path) -> bool:
    try:
        return bool((process / "exe").readlink())
    except OSError:
        return False


def owner_of(pid: int) -> int | None:
    """Tell whose process it is, by its real user id; None when it has ended."""
    try:
        return (PROC / str(pid)).stat().st_uid
    except OSError:
        return None
