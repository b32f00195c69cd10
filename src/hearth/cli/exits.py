"""How hearth's commands end: the exit statuses, and how an error is shown."""

from __future__ import annotations

import sys
from importlib import import_module

from hearth.cli.descriptors import STDERR, STDOUT, silence
from hearth.errors import Code, HearthError, InvalidInput

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


class _Form:
    """How errors are written; one command runs in a process."""

    is_json = False


def tell_as_json(wanted: bool) -> None:
    """Write errors as JSON from here on, one object a line, or for people."""
    _Form.is_json = wanted


def show_error(error: HearthError) -> None:
    """Write an error and the next step to stderr, whether or not the outputs can still be written."""
    try:
        sys.stdout.flush()
    except OSError:
        silence(STDOUT)
    try:
        sys.stderr.write(as_text(error, json=_Form.is_json))
        sys.stderr.flush()
    except OSError:
        silence(STDERR)


def as_text(error: HearthError, *, json: bool) -> str:
    """Give the line for a program, or the lines for people: what, what exactly, what to do."""
    if json:
        line: str = import_module("json").dumps(error.told())  # 2 ms that a command without an error need not wait
        return f"{line}\n"
    lines = [f"hearth: {error.brief}", *(f"  {text}" for text in (error.details, error.resolution) if text)]
    if error.code is Code.INTERNAL and error.request_id:
        lines.append(f"  request {error.request_id}")
    return "\n".join(lines) + "\n"


def show_misuse(what: str, resolution: str) -> None:
    """Write that the command line makes no sense, and where to read on."""
    show_error(InvalidInput(what, resolution=resolution))


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
