"""How an exception that ended a job or a step is kept in its row."""

from __future__ import annotations

import asyncio

from hearth.errors import Code, HearthError
from hearth.model import JobError, JobState

MAX_STEP_ERROR_CHARACTERS = 500


class UndoFailed(HearthError):
    """Some steps could not be undone: what they made may still be there. The job stays in UNDOING."""


INTERRUPTED = JobError(
    code=Code.INTERNAL,
    brief="the daemon ended while the job was under way",
    resolution="its steps were undone: start it again",
)


def describe(error: BaseException) -> JobError:
    """Give the form of an error that users may see: of errors that are not hearth's only the type."""
    match error:
        case asyncio.CancelledError():
            return JobError(code=Code.CANCELLED, brief="the job was cancelled")
        case HearthError():
            return JobError(
                code=error.code,
                brief=error.brief,
                details=error.details,
                resolution=error.resolution,
                field=error.field,
            )
        case _:
            return JobError(code=Code.INTERNAL, brief="an internal error ended the job", details=type(error).__name__)


def step_error(error: BaseException) -> str:
    """Give one line about what a step died of."""
    text = str(error) if isinstance(error, HearthError) else type(error).__name__
    return " ".join(text.split())[:MAX_STEP_ERROR_CHARACTERS]


def final_state(error: JobError) -> JobState:
    """Tell how a job ends whose steps are all undone."""
    return JobState.CANCELLED if error.code == Code.CANCELLED else JobState.FAILED
