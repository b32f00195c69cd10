"""Notes that daemons leave each other for a moment: what is lost with them can be found out again."""

from __future__ import annotations

from typing import Protocol

from hearth.host.clock import Clock


class Notes(Protocol):
    """Short texts by key. Nothing here raises for want of a server: what cannot be read is not there."""

    async def get(self, key: str) -> str | None:
        """Give a note that was put and is not too old."""
        ...

    async def put(self, key: str, text: str, *, kept_s: float) -> None:
        """Leave a note for so many seconds, in place of one that is there."""
        ...

    async def forget(self, key: str) -> None:
        """Remove a note; one that is not there is fine."""
        ...


class MemoryNotes:
    """``Notes`` of one process."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._notes: dict[str, tuple[float, str]] = {}

    async def get(self, key: str) -> str | None:
        until_s, text = self._notes.get(key, (0.0, ""))
        return text if self._clock.monotonic() < until_s else None

    async def put(self, key: str, text: str, *, kept_s: float) -> None:
        now_s = self._clock.monotonic()
        self._notes = {name: note for name, note in self._notes.items() if note[0] > now_s}
        self._notes[key] = (now_s + kept_s, text)

    async def forget(self, key: str) -> None:
        self._notes.pop(key, None)
