"""Commands that were run in sandboxes, as they are remembered. Values only."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from hearth.errors import Code, HearthError, TimedOut

SHOWN_ARGV_CHARS = 8192
"""Of a command line; the rest is not remembered."""


class ExecState(StrEnum):
    """Where a command stands. One that a signal ended has EXITED; FAILED is what hearth could not bring to its end."""

    RUNNING = "running"
    EXITED = "exited"
    FAILED = "failed"


@dataclass(frozen=True, kw_only=True)
class ExecFailure:
    """Why a command did not come to its end, as an error's parts."""

    code: Code
    brief: str
    details: str = ""
    resolution: str = ""

    @classmethod
    def of(cls, error: HearthError) -> ExecFailure:
        return cls(code=error.code, brief=error.brief, details=error.details, resolution=error.resolution)

    def error(self) -> HearthError:
        """Give the error that it was."""
        error = HearthError(self.brief, details=self.details, resolution=self.resolution)
        error.code = self.code
        return error


@dataclass(frozen=True, kw_only=True)
class Exec:
    """One command. Times in seconds; positions count the bytes of both outputs together.

    ``kept`` tells that it outlives connections: it is ``detached``, or waits ``linger_s`` for its client to come back.
    ``log_start`` is the position of the oldest output still there, ``output_bytes`` that behind the newest,
    ``log_bytes`` what its log takes on disk. Values of its environment are not remembered.
    """

    id: str
    sandbox_id: str
    owner: str
    argv: tuple[str, ...]
    created_at: datetime
    cwd: str | None = None
    user: str | None = None
    kept: bool = False
    detached: bool = False
    linger_s: float = 0.0
    timeout_s: float | None = None
    stdin_open: bool = False
    output_file: str | None = None
    state: ExecState = ExecState.RUNNING
    exit_code: int | None = None
    failure: ExecFailure | None = None
    ended_at: datetime | None = None
    output_bytes: int = 0
    log_start: int = 0
    log_bytes: int = 0


def shown_argv(argv: list[str]) -> tuple[str, ...]:
    """Give as much of a command line as is remembered."""
    shown, left = [], SHOWN_ARGV_CHARS
    for word in argv:
        if len(word) > left:
            shown.append(word[:left] + "…")
            break
        shown.append(word)
        left -= len(word) + 1
    return tuple(shown)


def timed_out(timeout_s: float) -> TimedOut:
    """Give the error of a command that its time limit has ended."""
    return TimedOut(
        "the command took too long",
        details=f"it was killed after {timeout_s:g} s",
        resolution="raise timeout_sec (at most 86400), or make the command faster",
        field="timeout_sec",
    )
