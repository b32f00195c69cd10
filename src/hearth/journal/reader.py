"""Reads one command's log from a position on, while it is being written. Blocking: the callers are threads."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from hearth.journal.records import HEAD, Piece, decode_records
from hearth.journal.segments import READ_BYTES, Segment, segments_of

CHUNK_BYTES = 262_144


class LogReader:
    """``position`` is that of the next byte; it jumps where there is a gap, as a piece tells by where it begins."""

    def __init__(self, directory: Path, exec_id: str, position: int) -> None:
        self._directory = directory
        self._exec_id = exec_id
        self._segment: Segment | None = None
        self._descriptor = -1
        self._offset = 0
        self._last = -1
        self.position = position

    def seek(self, position: int) -> None:
        """Read on from another position, ahead of this one."""
        if position != self.position:
            self.close()
            self.position, self._last = position, -1

    def read(self) -> Sequence[Piece]:
        """Give the next pieces, some hundred KiB at most of them unless one is longer; none when there are none (yet).

        Raises:
            OSError: a segment cannot be read.
        """
        while True:
            if self._segment is None and not self._open_next():
                return ()
            taken, size = self._take(CHUNK_BYTES)
            if not taken and size == CHUNK_BYTES:
                taken, _ = self._take(READ_BYTES)
            if not taken:
                if not self._has_newer():
                    return ()
                taken, _ = self._take(READ_BYTES)  # what came between the last look and the next segment
            if not taken:
                self.close()
                continue
            if pieces := [piece.since(self.position) for piece in taken if piece.end > self.position]:
                self.position = pieces[-1].end
                return pieces

    def close(self) -> None:
        """Let go of the file; reading on opens the next."""
        if self._segment is not None:
            os.close(self._descriptor)
            self._last, self._segment = self._segment.start, None

    def _take(self, size: int) -> tuple[Sequence[Piece], int]:
        data = os.pread(self._descriptor, size, self._offset)
        pieces, taken = decode_records(data)
        self._offset += taken
        return pieces, len(data)

    def _has_newer(self) -> bool:
        assert self._segment is not None
        return any(each.start > self._segment.start for each in segments_of(self._directory, self._exec_id))

    def _open_next(self) -> bool:
        """Open the segment that holds the position, else the first behind it; False when there is none."""
        while True:
            newer = [each for each in segments_of(self._directory, self._exec_id) if each.start > self._last]
            if not newer:
                return False
            before = [each for each in newer if each.start <= self.position]
            segment = before[-1] if before else newer[0]
            try:
                self._descriptor = os.open(segment.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            except FileNotFoundError:  # it was the oldest of a full log just now
                self._last = segment.start
                continue
            self._segment, self._offset = segment, HEAD.size
            return True
