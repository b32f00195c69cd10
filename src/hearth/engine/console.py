"""The last words of a machine: its serial console, read all the time and kept in bounded memory."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
from collections import deque

KEPT_BYTES = 64 * 1024
_CHUNK = 8192
# Everything but printable ASCII and newline: a guest must not speak to an operator's terminal.
_UNPRINTABLE = re.compile(r"[^\x20-\x7e\n]")


class Console:
    """Drains one connected console socket; a guest that floods it costs ``KEPT_BYTES`` and no more."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._chunks: deque[bytes] = deque()
        self._size = 0
        self._task = asyncio.create_task(self._drain(), name="console")
        self._changed = asyncio.Event()

    async def _drain(self) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError):
            while chunk := await loop.sock_recv(self._connection, _CHUNK):
                self._chunks.append(chunk)
                self._size += len(chunk)
                while self._size - len(self._chunks[0]) >= KEPT_BYTES:
                    self._size -= len(self._chunks.popleft())
                self._changed.set()
        self._changed.set()

    def text(self) -> str:
        """Give what is kept, unprintable characters removed."""
        raw = b"".join(self._chunks)[-KEPT_BYTES:]
        return _UNPRINTABLE.sub("", raw.decode("ascii", "replace"))

    def tail(self, lines: int = 20) -> str:
        """Give the last lines that hold anything."""
        return "\n".join([line for line in self.text().splitlines() if line.strip()][-lines:])

    async def wait_for(self, words: str) -> bool:
        """Wait until ``words`` were printed (True) or the console ended without them (False)."""
        while words not in self.text():
            if self._task.done():
                return words in self.text()
            self._changed.clear()
            await self._changed.wait()
        return True

    async def drained(self, timeout_s: float) -> None:
        """Wait, bounded, until the machine's last words have arrived."""
        await asyncio.wait([self._task], timeout=timeout_s)

    async def close(self) -> None:
        """Stop reading and give the socket back."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._connection.close()
