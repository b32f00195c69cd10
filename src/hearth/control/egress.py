"""What sandboxes tried to reach beyond themselves: remembered in memory, bounded, the oldest forgotten first."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

import structlog

from hearth.host.clock import Clock
from hearth.network.events import EgressEvent, EventKind

log = structlog.get_logger(__name__)

MOST_REFUSED = 512
"""Different attempts remembered of one sandbox. What a guest is refused does not push out what an audit saw."""
MOST_SEEN = 1000
"""As many as a policy may list."""


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One thing that a sandbox tried, ``count`` times from ``first_at`` to ``last_at``."""

    event: EgressEvent
    count: int
    first_at: datetime
    last_at: datetime


@dataclass(kw_only=True)
class _Memory:
    refused: OrderedDict[EgressEvent, Attempt] = field(default_factory=OrderedDict)
    seen: OrderedDict[EgressEvent, Attempt] = field(default_factory=OrderedDict)
    counts: Counter[str] = field(default_factory=Counter)
    forgotten: int = 0


@dataclass(frozen=True, kw_only=True)
class Tried:
    """What is remembered of a sandbox.

    Args:
        attempts: different ones, the latest last.
        counts: rule → how often it decided, forgotten attempts included.
        forgotten: attempts that are not among ``attempts`` any more.
    """

    attempts: Sequence[Attempt] = ()
    counts: dict[str, int] = field(default_factory=dict)
    forgotten: int = 0


class EgressLog:
    """The attempts of all sandboxes since this daemon started. ``tell`` blocks nobody."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._memories: dict[str, _Memory] = {}

    def tell(self, event: EgressEvent) -> None:
        """Note what a sandbox tried."""
        memory = self._memories.setdefault(event.sandbox_id, _Memory())
        memory.counts[event.rule] += 1
        kept, most = (memory.seen, MOST_SEEN) if event.kind is EventKind.SEEN else (memory.refused, MOST_REFUSED)
        now = self._clock.now()
        known = kept.pop(event, None)
        if known is None:
            kept[event] = Attempt(event=event, count=1, first_at=now, last_at=now)
            words = {"rule": event.rule, "host": event.host, "address": str(event.address or ""), "port": event.port}
            log.debug("egress", sandbox=event.sandbox_id, kind=event.kind, **words)
        else:
            kept[event] = replace(known, count=known.count + 1, last_at=now)
        if len(kept) > most:
            kept.popitem(last=False)
            memory.forgotten += 1

    def tried(self, sandbox_id: str) -> Tried:
        """Tell what a sandbox tried."""
        memory = self._memories.get(sandbox_id)
        if memory is None:
            return Tried()
        attempts = sorted([*memory.refused.values(), *memory.seen.values()], key=lambda attempt: attempt.last_at)
        return Tried(attempts=attempts, counts=dict(memory.counts), forgotten=memory.forgotten)

    def forget(self, sandbox_id: str) -> None:
        """Drop what is known of a destroyed sandbox."""
        self._memories.pop(sandbox_id, None)
