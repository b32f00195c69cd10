"""Writes one command's log. Blocking: the callers are threads.

Nothing is waited for to reach the disk but on ``sync``: what was written is safe from the end of this process, and
after a power cut a torn tail is a marked gap at the worst.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

from hearth.host.files import sync_directory
from hearth.journal.records import HEAD, Piece, encode_head, encode_records
from hearth.journal.segments import Segment, measure, segment_path, segments_of

SEGMENTS_PER_LOG = 16
MIN_SEGMENT_BYTES = 65_536
_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
MODE = 0o600
DIRECTORY_MODE = 0o700


class LogWriter:
    """One log, from ``start`` to ``end``: the positions of the oldest byte kept and behind the newest.

    Beyond ``max_bytes`` of files the oldest segment goes. ``recover`` continues a log that is there.
    """

    def __init__(self, directory: Path, exec_id: str, *, max_bytes: int) -> None:
        self._directory = directory
        self._exec_id = exec_id
        self._max_bytes = max_bytes
        self._segment_bytes = max(MIN_SEGMENT_BYTES, max_bytes // SEGMENTS_PER_LOG)
        self._segments: list[tuple[Segment, int]] = []
        self._descriptor: int | None = None
        self._current_bytes = 0
        self.end = 0

    @classmethod
    def recover(cls, directory: Path, exec_id: str, *, max_bytes: int) -> LogWriter:
        """Open a log to go on with it; a torn tail is cut off.

        Raises:
            OSError: it cannot be read or cut.
        """
        writer = cls(directory, exec_id, max_bytes=max_bytes)
        found = list(segments_of(directory, exec_id))
        while found:
            extent = measure(found[-1])
            if extent.size_bytes > 0:
                os.truncate(found[-1].path, extent.size_bytes)
                writer.end = extent.end
                writer._segments = [(each, each.path.stat().st_size) for each in found]
                return writer
            found.pop().path.unlink()  # not even its head was written
        return writer

    @property
    def start(self) -> int:
        segments = self._segments
        return segments[0][0].start if segments else self.end

    @property
    def size_bytes(self) -> int:
        """What its files take."""
        return sum(size for _, size in self._segments)

    def append(self, pieces: Sequence[Piece]) -> None:
        """Write pieces behind the end; a position beyond it leaves a gap, one before it is written from the end on.

        Raises:
            OSError: they cannot be written; the log ends where it did, and what was to come is a gap unless it is
                appended again.
        """
        pieces = [piece.since(self.end) for piece in pieces if piece.end > self.end]
        if not pieces:
            return
        block = encode_records(pieces)
        self._open(pieces[0].position)
        assert self._descriptor is not None
        try:
            view = memoryview(block)
            while view:
                view = view[os.write(self._descriptor, view) :]
        except OSError:
            self._cut()
            raise
        self._current_bytes += len(block)
        self.end = pieces[-1].end
        self._segments[-1] = (self._segments[-1][0], self._current_bytes)
        while len(self._segments) > 1 and self.size_bytes > self._max_bytes:
            self.drop_oldest()

    def drop_oldest(self) -> bool:
        """Remove the oldest segment; False when that is the one being written.

        Raises:
            OSError: it cannot be removed.
        """
        if len(self._segments) < 2:
            return False
        self._segments[0][0].path.unlink(missing_ok=True)
        self._segments = self._segments[1:]  # whoever looks at it from another thread keeps a whole list
        return True

    def sync(self) -> None:
        """Wait until all of it is on the disk.

        Raises:
            OSError: the disk reports that it is not.
        """
        if self._descriptor is not None:
            os.fdatasync(self._descriptor)
            sync_directory(self._directory)

    def close(self) -> None:
        """Let go of the file; it may be appended to again."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _open(self, position: int) -> None:
        """Have a segment with room open: the last one, or a new one that begins at ``position``."""
        if self._segments and self._segments[-1][1] < self._segment_bytes:
            if self._descriptor is None:
                segment, self._current_bytes = self._segments[-1]
                self._descriptor = os.open(segment.path, _FLAGS & ~os.O_CREAT)
            return
        self.close()
        self._directory.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
        segment = Segment(segment_path(self._directory, self._exec_id, position), position)
        self._descriptor = os.open(segment.path, _FLAGS, MODE)
        try:
            os.write(self._descriptor, encode_head(position))
        except OSError:
            self.close()
            segment.path.unlink(missing_ok=True)
            raise
        self._current_bytes = HEAD.size
        self._segments.append((segment, self._current_bytes))

    def _cut(self) -> None:
        """Take away what was half written; where even that fails, a new segment follows and readers skip the rest."""
        assert self._descriptor is not None
        with contextlib.suppress(OSError):
            os.ftruncate(self._descriptor, self._current_bytes)
            return
        self._segments[-1] = (self._segments[-1][0], self._segment_bytes)
