"""What a job does, as data: named steps in order, each with what undoes it. Nothing here runs anything."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import msgspec

from hearth.errors import HearthError

UNDO_TIMEOUT_S = 30.0
"""How long one undo may take before the next one begins."""

T = TypeVar("T")


class InputUnreadable(HearthError):
    """The stored input of a job does not have the form its plan wants (an older or newer version wrote it)."""


@dataclass(frozen=True, kw_only=True)
class Step(Generic[T]):
    """One step. ``do`` may use what earlier steps left in memory; ``undo`` has nothing but the job's input.

    ``undo`` must be right after ``do`` has done nothing, half or all of its work, and when it has been undone before:
    after a crash nobody knows which it was.
    """

    name: str
    do: Callable[[T], Awaitable[None]]
    undo: Callable[[T], Awaitable[None]]
    undo_timeout_s: float = UNDO_TIMEOUT_S


@dataclass(frozen=True, kw_only=True)
class Plan(Generic[T]):
    """The steps of one kind of job and the dataclass its input is. Step names are unique: they are what is stored."""

    kind: str
    input_type: type[T]
    steps: Sequence[Step[T]]

    def __post_init__(self) -> None:
        names = [step.name for step in self.steps]
        if len(set(names)) != len(names):
            raise ValueError(f"plan {self.kind} has two steps of one name: {names}")

    def encode(self, value: T) -> Mapping[str, object]:
        """Give the JSON object that stands for an input."""
        encoded: Mapping[str, object] = msgspec.to_builtins(value)
        return encoded

    def decode(self, stored: Mapping[str, object]) -> T:
        """Give the input back from what was stored.

        Raises:
            InputUnreadable: it does not fit this plan.
        """
        try:
            return msgspec.convert(stored, self.input_type)
        except msgspec.ValidationError as error:
            raise InputUnreadable("the job's stored input cannot be read", details=f"{self.kind}: {error}") from error

    def begun(self, recorded: str | None) -> Sequence[Step[T]]:
        """Give the steps to undo, in the order to undo them, when ``recorded`` is the last step that was begun.

        None means that nothing was begun. A name this plan does not know (another version of hearth began the job)
        means that anything may have been: then all steps are undone, which their undos allow.
        """
        if recorded is None:
            return ()
        names = [step.name for step in self.steps]
        count = names.index(recorded) + 1 if recorded in names else len(names)
        return tuple(reversed(self.steps[:count]))
