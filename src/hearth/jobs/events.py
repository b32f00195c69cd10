"""What a runner tells while it works: one event at the start and one at the end of each half of a step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from hearth.model import StepPhase


class Moment(StrEnum):
    """When in a step's half the event was made."""

    STARTED = "started"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, kw_only=True)
class StepEvent:
    """Progress of a job, for logs, metrics and the CLI.

    ``number`` counts from 1 to ``count`` in the order of doing, in undo events too. ``duration_s`` (seconds) is None at
    the start; ``error`` is set when it failed.
    """

    job_id: str
    kind: str
    subject: str
    step: str
    number: int
    count: int
    phase: StepPhase
    moment: Moment
    duration_s: float | None = None
    error: str | None = None


Observer = Callable[[StepEvent], None]
"""Takes events; called in the runner's task, so it must not block. What it raises is logged and ignored."""


def unobserved(_: StepEvent) -> None:
    """Ignore all events."""
