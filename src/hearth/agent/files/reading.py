"""Which part of a file is asked for, as a stream of pieces: whole, by lines, or by bytes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

from hearth.agent.refusal import refused
from hearth.wire.faults import Fault
from hearth.wire.messages import FileReadRequest

PIECE_BYTES = 256 * 1024


def pieces_of(descriptor: int, size: int, *, start: int = 0, length: int | None = None) -> Iterator[bytes]:
    """Read a file piece by piece, up to the size it had when it was opened: one that grows all the time must end.

    A size of 0 says nothing (procfs): then it is read to its end.
    """
    end = size if size else None
    if length is not None:
        end = start + length if end is None else min(end, start + length)
    position = start
    while end is None or position < end:
        count = PIECE_BYTES if end is None else min(PIECE_BYTES, end - position)
        try:
            piece = os.pread(descriptor, count, position) if start else os.read(descriptor, count)
        except BlockingIOError:  # a kernel file that would wait for news
            return
        if not piece:
            return
        position += len(piece)
        yield piece


def select(pieces: Iterable[bytes], *, offset: int, limit: int | None, max_bytes: int | None) -> Iterator[bytes]:
    """Give ``limit`` lines from the 1-based line ``offset`` on, at most ``max_bytes``; whichever is met first ends it.

    Line ends stay as they are, and a line longer than ``max_bytes`` is cut there.
    """
    to_skip = offset - 1
    lines, room = limit, max_bytes
    if lines == 0 or room == 0:
        return
    for whole in pieces:
        piece = whole
        if to_skip:
            start, to_skip = _behind_lines(piece, to_skip)
            piece = piece[start:]
        if lines is not None:
            end, lines = _behind_lines(piece, lines)
            piece = piece[:end]
        if room is not None:
            piece = piece[:room]
            room -= len(piece)
        if piece:
            yield piece
        if lines == 0 or room == 0:
            return


def check(request: FileReadRequest) -> None:
    """Refuse a request that selects nothing that could be meant.

    Raises:
        Refused: a number is out of its range; the text names it.
    """
    for name, value, low in (
        ("offset", request.offset, 1),
        ("limit", request.limit, 0),
        ("max_bytes", request.max_bytes, 0),
    ):
        if value is not None and value < low:
            raise refused(Fault.INVALID, f"{name} is {value}, the least is {low}")


def _behind_lines(data: bytes, count: int) -> tuple[int, int]:
    """Give the position behind the ``count``-th line end, or the end of ``data``, and how many lines are missing."""
    held = data.count(b"\n")
    if held < count:
        return len(data), count - held
    position = 0
    for _ in range(count):
        position = data.index(b"\n", position) + 1
    return position, 0
