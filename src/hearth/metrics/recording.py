"""Puts what happens elsewhere into the instruments: jobs, wakes, snapshots."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Coroutine, Iterator
from typing import Any, TypeVar

from hearth.metrics.instruments import (
    SNAPSHOT_BYTES,
    SNAPSHOT_FAILURES,
    SNAPSHOT_PAUSE_SECONDS,
    SNAPSHOT_SECONDS,
    WAKES,
)
from hearth.metrics.tracing import span

T = TypeVar("T")


async def waking(kind: str, wake: Coroutine[Any, Any, T]) -> T:
    """Carry out a wake from ``warm`` or ``cold`` and tell what it took and how it ended."""
    started_s, outcome = time.perf_counter(), "failed"
    try:
        with span("wake", kind=kind):
            result = await wake
        outcome = "woken"
        return result
    finally:
        WAKES.labels(kind, outcome).observe(time.perf_counter() - started_s)


class Snapshot:
    """One snapshot being taken; ``taken`` says what came of it."""

    def __init__(self) -> None:
        self.paused_s: float | None = None
        self.size_bytes = 0

    def taken(self, *, paused_s: float, size_bytes: int) -> None:
        self.paused_s, self.size_bytes = paused_s, size_bytes


@contextlib.contextmanager
def snapshot(*, to_sleep: bool) -> Iterator[Snapshot]:
    """Time the taking of a snapshot; one that leaves the context by an error failed."""
    kind, started_s, current = "stop" if to_sleep else "copy", time.perf_counter(), Snapshot()
    try:
        with span("snapshot", kind=kind):
            yield current
    except BaseException:
        SNAPSHOT_FAILURES.labels(kind).inc()
        raise
    SNAPSHOT_SECONDS.labels(kind).observe(time.perf_counter() - started_s)
    if current.paused_s is not None:
        SNAPSHOT_PAUSE_SECONDS.labels(kind).observe(current.paused_s)
        SNAPSHOT_BYTES.labels(kind).inc(current.size_bytes)
