"""Finding processes that an earlier daemon started, by a word of their command line that nobody else uses."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

PROC = Path("/proc")


def find_by_arguments(words: Sequence[str]) -> list[int]:
    """Give the process ids whose command line holds ``words`` in a row; vanished processes are passed over."""
    wanted = b"\0" + b"\0".join(os.fsencode(word) for word in words) + b"\0"
    found = []
    for entry in PROC.iterdir():
        if not entry.name.isdigit():
            continue
        try:
            line = (entry / "cmdline").read_bytes()
        except OSError:
            continue
        if wanted in b"\0" + line:
            found.append(int(entry.name))
    return sorted(found)


def owner_of(pid: int) -> int | None:
    """Tell whose process it is, by its real user id; None when it has ended."""
    try:
        return (PROC / str(pid)).stat().st_uid
    except OSError:
        return None
