"""Finding processes that an earlier daemon started, by a word of their command line that nobody else uses."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

PROC = Path("/proc")


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
                yield int(entry.name), (entry / "cmdline").read_bytes()


def owner_of(pid: int) -> int | None:
    """Tell whose process it is, by its real user id; None when it has ended."""
    try:
        return (PROC / str(pid)).stat().st_uid
    except OSError:
        return None
