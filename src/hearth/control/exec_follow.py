"""Follows a command's output from a position on: what is in memory from there, what lies behind from its files.

A reader has no queue, so any number of them costs nothing; one that is overtaken by the end of what is kept learns of a
gap.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import NamedTuple

from hearth.control.exec_log import ExecLog
from hearth.journal.reader import LogReader
from hearth.journal.records import Piece

PIECE_BYTES = 16_384


class Gap(NamedTuple):
    """Output that is no longer there, from one position to another."""

    position: int
    end: int


class Follower:
    """One reader of one command. ``position`` is what it has been given."""

    def __init__(self, directory: Path, exec_id: str, position: int, *, end: int, live: ExecLog | None) -> None:
        """``end`` is where the output of a command ends that no longer runs; of one that does, ``live`` is its log."""
        self.position = position
        self._end = end
        self._live = live
        self._reader = LogReader(directory, exec_id, position)

    async def pieces(self, *, waits: bool) -> AsyncGenerator[Piece | Gap, None]:
        """Give pieces and gaps up to the end of the output; of a command that runs, up to now unless ``waits``."""
        try:
            while True:
                found = await self._look()
                for piece in found:
                    if piece.position > self.position:
                        yield Gap(self.position, piece.position)
                    self.position = piece.end
                    yield piece
                if found:
                    continue
                if self.position < self._kept_to:
                    yield Gap(self.position, self._kept_to)
                    self.position = self._kept_to
                elif self._live is None or self._live.finished or not waits:
                    return
                else:
                    await self._live.change()
        finally:
            self._reader.close()

    @property
    def _kept_to(self) -> int:
        """Up to where files would hold the output."""
        return self._end if self._live is None else self._live.stored

    async def _look(self) -> Sequence[Piece]:
        if self._live is not None and self.position >= self._live.stored:
            return _cut(self._live.held_from(self.position))
        self._reader.seek(self.position)
        return _cut(await asyncio.to_thread(self._reader.read))


def _cut(pieces: Sequence[Piece]) -> Sequence[Piece]:
    """Cut long pieces: a line of an answer is taken whole or not at all, and a poor connection shall get on."""
    return [
        piece._replace(position=piece.position + start, data=piece.data[start : start + PIECE_BYTES])
        for piece in pieces
        for start in range(0, len(piece.data), PIECE_BYTES)
    ]
