"""How hearth's commands end: the exit statuses, and how an error is shown."""

from __future__ import annotations

import sys

from hearth.cli.descriptors import STDERR, STDOUT, silence
from hearth.errors import Code, HearthError

FAILED = 1
USAGE = 2
EXEC_TIMED_OUT = 124
EXEC_FAILED = 125
EXEC_CANNOT_START = 126
EXEC_NOT_FOUND = 127
INTERRUPTED = 130
BROKEN_PIPE = 141
"""What a shell reports of a program that SIGPIPE ended: 128 + 13."""

NOT_FOUND_WORDS = "No such file or directory"


def show_error(error: HearthError) -> None:
    """Write an error and the next step to stderr, whether or not the outputs can still be written."""
    try:
        sys.stdout.flush()
    except OSError:
        silence(STDOUT)
    lines = [f"hearth: {error.brief}", *(f"  {text}" for text in (error.details, error.resolution) if text)]
    try:
        sys.stderr.write("\n".join(lines) + "\n")
        sys.stderr.flush()
    except OSError:
        silence(STDERR)


def exec_status(error: HearthError) -> int:
    """Give the status of an exec that hearth, not the command, let fail; the numbers are env(1)'s and timeout(1)'s."""
    if error.code is Code.TIMEOUT:
        return EXEC_TIMED_OUT
    if error.code is not Code.START_FAILED:
        return EXEC_FAILED
    return EXEC_NOT_FOUND if NOT_FOUND_WORDS in error.details else EXEC_CANNOT_START


def leave_quietly() -> int:
    """End after the reader of our output has left: nothing more is written, not even by the interpreter's end."""
    silence(STDOUT)
    return BROKEN_PIPE


def show_failed_output(error: OSError) -> None:
    """Tell that what we had to say could not be written, or that a file could not be used."""
    silence(STDOUT)
    reason = error.strerror or str(error)
    if error.filename is not None:
        show_error(HearthError("a file cannot be used", details=f"{error.filename}: {reason}"))
        return
    show_error(
        HearthError("cannot write the output", details=reason, resolution="check where it goes: is the disk full?")
    )
