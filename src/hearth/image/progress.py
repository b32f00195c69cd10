"""What a build tells while it runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Progress:
    """One step forward: ``fraction`` of the stage is 0 to 1, or None when nobody can tell."""

    stage: str
    fraction: float | None
    message: str


OnProgress = Callable[[Progress], None]


def ignore_progress(_: Progress) -> None:
    """Take a step and do nothing with it."""
