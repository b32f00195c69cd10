"""What happens on this host, told as it happens: a ring of the last events, and readers with a place in it.

A reader has no queue of its own, so that any number of them costs nothing: one that falls behind by more than the ring
holds has lost events and is cut off. A place outlives a connection, not the daemon: whoever comes back with one that is
gone is told so and gets what there is.
"""

from __future__ import annotations

import asyncio
import difflib
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from hearth.errors import HearthError, InvalidInput, RateLimited
from hearth.host.clock import Clock
from hearth.metrics.instruments import EVENT_SUBSCRIBERS
from hearth.model import Heat, JobState, SandboxState, SnapshotState, VolumeState

EVENTS_KEPT = 8192
"""Some 4 MiB, and many minutes of a busy host."""
MAX_READERS = 1000
MAX_READERS_PER_USER = 200
BECOMES: Mapping[str, Collection[str]] = {
    "sandbox": (*SandboxState, *Heat, "changed", "destroyed"),
    "snapshot": (*SnapshotState, "deleted"),
    "volume": (*VolumeState, "deleted", "attached", "detached"),
    "template": ("created", "changed", "deleted"),
    "port": ("published", "unpublished"),
    "job": (*JobState, "progress"),
    "gap": (),
}
"""What is told of each noun."""
NOUNS = frozenset(BECOMES)
KINDS = NOUNS | {f"{noun}.{word}" for noun, words in BECOMES.items() for word in words}
"""All that a reader may ask for."""
_PLACE = re.compile(r"([a-z0-9-]{1,64})\.(\d{1,18})")


class FellBehind(HearthError):
    """A reader was so slow that events it had not seen are gone."""


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that happened to ``subject``, an id, which its owner calls ``name``.

    ``kind`` is a noun and what became of it, such as ``sandbox.running``. Without an owner only administrators see it.
    """

    number: int
    at: datetime
    kind: str
    subject: str
    owner: str | None = None
    name: str = ""
    data: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Which events a reader wants: of one owner (None: of all), of these kinds, of this subject; nothing said: all.

    A kind is given whole, or by its noun: ``sandbox`` stands for all that begin with ``sandbox.``.
    """

    owner: str | None = None
    kinds: frozenset[str] = frozenset()
    subject: str | None = None

    def matches(self, event: Event) -> bool:
        """Tell whether a reader wants an event, and may see it."""
        return (
            self.owner in (None, event.owner)
            and self.subject in (None, event.subject)
            and (not self.kinds or event.kind in self.kinds or event.kind.partition(".")[0] in self.kinds)
        )


class Events:
    """The ring.

    Args:
        run: names this run of the daemon in places; never the same twice.
    """

    def __init__(self, clock: Clock, *, run: str, kept: int = EVENTS_KEPT) -> None:
        self._clock = clock
        self._run = run
        self._ring: list[Event | None] = [None] * kept
        self._count = 0
        self._news = asyncio.Event()
        self._readers: dict[str, int] = {}
        self.closed = False

    def tell(
        self,
        kind: str,
        subject: str,
        *,
        owner: str | None = None,
        name: str = "",
        data: Mapping[str, object] | None = None,
    ) -> None:
        """Add an event and wake whoever reads."""
        event = Event(
            number=self._count,
            at=self._clock.now(),
            kind=kind,
            subject=subject,
            owner=owner,
            name=name,
            data=data or {},
        )
        self._ring[self._count % len(self._ring)] = event
        self._count += 1
        self._wake()

    @property
    def oldest(self) -> int:
        """The number of the oldest event there is."""
        return max(0, self._count - len(self._ring))

    def place(self, number: int) -> str:
        """Give what stands for the place behind an event."""
        return f"{self._run}.{number}"

    def reader(self, user_id: str, wanted: Wanted, *, after: str | None = None) -> Reader:
        """Begin to read.

        Args:
            after: a place; "oldest" is that before all there is. None begins with what happens next.

        Raises:
            InvalidInput: it is no place.
            RateLimited: too many read already.
        """
        if self._readers.get(user_id, 0) >= MAX_READERS_PER_USER or sum(self._readers.values()) >= MAX_READERS:
            raise RateLimited(
                "too many read events",
                details=f"a user may have {MAX_READERS_PER_USER} streams of events open, all users {MAX_READERS}",
                resolution="close some",
            )
        number, whole = self._find(after)
        self._readers[user_id] = self._readers.get(user_id, 0) + 1
        EVENT_SUBSCRIBERS.inc()

        def leave() -> None:
            EVENT_SUBSCRIBERS.dec()
            self._readers[user_id] -= 1
            if not self._readers[user_id]:
                del self._readers[user_id]

        return Reader(self, wanted, number, whole=whole, leave=leave)

    def since(self, number: int) -> Sequence[Event]:
        """Give the events from a number on.

        Raises:
            FellBehind: some of them are gone.
        """
        if number < self.oldest:
            raise FellBehind("events were lost", details=f"{self.oldest - number} were gone before they were read")
        size = len(self._ring)
        return [event for each in range(number, self._count) if (event := self._ring[each % size]) is not None]

    async def wait(self) -> None:
        """Wait for the next event, or for the end."""
        if not self.closed:
            await self._news.wait()

    def close(self) -> None:
        """Let all readers come to their end."""
        self.closed = True
        self._wake()

    def _wake(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    def _find(self, after: str | None) -> tuple[int, bool]:
        """Give the number to begin with, and whether nothing was lost before it."""
        if after is None:
            return self._count, True
        if after == "oldest":
            return self.oldest, True
        match = _PLACE.fullmatch(after)
        if match is None:
            raise InvalidInput(
                "invalid place in the events",
                details=f"{after[:80]!r} is not the id of an event",
                resolution="give the id of the last event you have seen, or 'oldest'",
                field="after",
            )
        number = int(match[2]) + 1
        if match[1] != self._run or not self.oldest <= number <= self._count:
            return self.oldest, False
        return number, True


class Reader:
    """One reader's place.

    ``whole`` is False where events between the place it asked for and the first it gets are lost.
    """

    def __init__(self, events: Events, wanted: Wanted, number: int, *, whole: bool, leave: Callable[[], None]) -> None:
        self._events = events
        self._wanted = wanted
        self._number = number
        self._leave: Callable[[], None] | None = leave
        self.whole = whole

    async def next(self, timeout_s: float) -> Sequence[Event] | None:
        """Give the wanted events that came; none where none comes within ``timeout_s`` s, None at the end of all.

        Raises:
            FellBehind: it was too slow.
        """
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    if found := self.take():
                        return found
                    if self._events.closed:
                        return None
                    await self._events.wait()
        except TimeoutError:
            return ()

    def take(self) -> Sequence[Event]:
        """Give the wanted events that are there already. Raises FellBehind."""
        events = self._events.since(self._number)
        self._number += len(events)
        return [event for event in events if self._wanted.matches(event)]

    def close(self) -> None:
        """Leave; doing it twice is fine."""
        if self._leave is not None:
            self._leave()
            self._leave = None


def kinds_of(names: Collection[str]) -> frozenset[str]:
    """Give the kinds that a caller named; ``sandbox.*`` is ``sandbox``.

    Raises:
        InvalidInput: nothing is ever told under one of them, and whoever follows it would wait for ever.
    """
    kinds = frozenset(name.removesuffix(".*") for name in names)
    if unknown := sorted(kinds - KINDS):
        near = difflib.get_close_matches(unknown[0], KINDS, n=1)
        noun = unknown[0].partition(".")[0]
        known = sorted(kind for kind in KINDS if kind.startswith(f"{noun}.")) or sorted(NOUNS)
        raise InvalidInput(
            "unknown type of event",
            details=f"there is no {unknown[0]!r}; there are {', '.join(known)}",
            resolution=f"did you mean {near[0]!r}?" if near else "name one of these",
            field="type",
        )
    return kinds
