"""The files of a command's log: segments named by the position they begin at, so that the oldest can go.

``execs/<sandbox>/<exec>.<position, 20 digits>.log``, readable by the daemon alone. One process writes them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from hearth.journal.records import HEAD, decode_head, decode_records

_NAME = re.compile(r"(ex-[0-9a-z]+)\.([0-9]{20})\.log")
READ_BYTES = 2 * 1024 * 1024
"""Holds the longest record."""


class Segment(NamedTuple):
    """One file; ``start`` is the position of its first byte of output."""

    path: Path
    start: int


class Extent(NamedTuple):
    """What is whole of a segment: so many bytes of the file, up to this position of the output."""

    size_bytes: int
    end: int


def segment_path(directory: Path, exec_id: str, start: int) -> Path:
    """Give the path of the segment that begins at a position."""
    return directory / f"{exec_id}.{start:020d}.log"


def segments_of(directory: Path, exec_id: str) -> Sequence[Segment]:
    """Give the segments of one log, the oldest first."""
    return segments_in(directory).get(exec_id, [])


def segments_in(directory: Path) -> dict[str, list[Segment]]:
    """Give the segments of all logs in a directory, by the id of the command, the oldest first."""
    found: dict[str, list[Segment]] = {}
    try:
        names = [entry.name for entry in directory.iterdir()]
    except FileNotFoundError:
        return found
    for name in sorted(names):
        if match := _NAME.fullmatch(name):
            found.setdefault(match[1], []).append(Segment(directory / name, int(match[2])))
    return found


def measure(segment: Segment) -> Extent:
    """Read a segment through and tell how much of it is whole; nothing when not even its head is."""
    with segment.path.open("rb") as file:
        if decode_head(file.read(HEAD.size)) != segment.start:
            return Extent(0, segment.start)
        offset, end = HEAD.size, segment.start
        while True:
            file.seek(offset)
            pieces, taken = decode_records(file.read(READ_BYTES))
            if not pieces:
                return Extent(offset, end)
            offset, end = offset + taken, pieces[-1].end
