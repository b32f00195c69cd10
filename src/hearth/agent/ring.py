"""The last bytes of a stream, addressed by their position in the whole of it."""

from __future__ import annotations


class Ring:
    """Keeps the last ``capacity`` bytes written; positions count from the first byte ever written and never repeat."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._buffer = bytearray(capacity)
        self._view = memoryview(self._buffer)
        self._end = 0

    @property
    def start(self) -> int:
        """Position of the oldest byte still held."""
        return max(0, self._end - self._capacity)

    @property
    def end(self) -> int:
        """Position behind the newest byte."""
        return self._end

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Add bytes, over the oldest ones."""
        view = memoryview(data)
        if len(view) > self._capacity:
            self._end += len(view) - self._capacity
            view = view[-self._capacity :]
        if not self._capacity:
            return
        at = self._end % self._capacity
        first = min(len(view), self._capacity - at)
        self._view[at : at + first] = view[:first]
        self._view[: len(view) - first] = view[first:]
        self._end += len(view)

    def release(self) -> None:
        """Forget all bytes and keep no more; positions count on."""
        self._capacity = 0
        self._view.release()
        self._buffer = bytearray()

    def read_from(self, position: int) -> bytes:
        """Give all bytes from a position on, in one piece.

        Raises:
            IndexError: the position has been overwritten, or was never written.
        """
        if not self.start <= position <= self._end:
            raise IndexError(f"position {position} is outside {self.start}..{self._end}")
        count = self._end - position
        if not count:
            return b""
        at = position % self._capacity
        first = min(count, self._capacity - at)
        return b"".join((self._view[at : at + first], self._view[: count - first]))
