"""What a kept command has written and the host has not yet said to have: a window of its output, by position."""

from __future__ import annotations

from collections import deque

from hearth.wire.runtime_typing import NamedTuple

WINDOW_BYTES = 262_144
"""A command that has so much output waiting stands still until somebody takes it."""
_CHUNK_COST_BYTES = 64
"""What a chunk takes besides its bytes, about: many tiny ones fill the window as well."""


class Chunk(NamedTuple):
    """A piece of one stream. Positions count the bytes of all streams together, in the order they were read."""

    kind: int
    position: int
    data: bytes


class Unacked:
    """Chunks between the last position the host acknowledged and the end; those before ``cursor`` have been sent."""

    def __init__(self) -> None:
        self._sent: deque[Chunk] = deque()
        self._unsent: deque[Chunk] = deque()
        self._start = 0
        self._end = 0
        self._cost = 0

    @property
    def start(self) -> int:
        """Position of the oldest byte still held."""
        return self._start

    @property
    def end(self) -> int:
        """Position behind the newest byte."""
        return self._end

    @property
    def room(self) -> int:
        """How many bytes may be read now."""
        return max(0, WINDOW_BYTES - self._cost - _CHUNK_COST_BYTES)

    @property
    def has_unsent(self) -> bool:
        return bool(self._unsent)

    def add(self, kind: int, data: bytes) -> None:
        """Hold a chunk."""
        self._unsent.append(Chunk(kind, self._end, data))
        self._end += len(data)
        self._cost += len(data) + _CHUNK_COST_BYTES

    def next(self) -> Chunk:
        """Give the next chunk to be sent.

        Raises:
            IndexError: there is none.
        """
        chunk = self._unsent.popleft()
        self._sent.append(chunk)
        return chunk

    def rewind(self, position: int) -> int:
        """Have everything from ``position`` on sent again, for another client, and give where that begins.

        What is no longer held cannot be; a position that was never reached is taken for the end.
        """
        self._unsent.extendleft(reversed(self._sent))
        self._sent.clear()
        position = min(max(position, self._start), self._end)
        self._forget(position)
        return position

    def acknowledge(self, position: int) -> None:
        """Forget what lies before ``position``; a host that claims to have what it was not sent is not believed."""
        self._forget(min(position, self._unsent[0].position if self._unsent else self._end))

    def _forget(self, position: int) -> None:
        while (chunks := self._sent or self._unsent) and position > chunks[0].position:
            first = chunks.popleft()
            taken = position - first.position
            if taken < len(first.data):
                chunks.appendleft(Chunk(first.kind, position, first.data[taken:]))
                self._cost -= taken
            else:
                self._cost -= len(first.data) + _CHUNK_COST_BYTES
        self._start = max(self._start, position)
