"""A command as a request asks for it, and as it is told of."""

from __future__ import annotations

import base64
import binascii
import signal
from collections.abc import Mapping

from hearth.api.exec_schemas import ExecView
from hearth.api.limits import DEFAULT_TIMEOUT_S
from hearth.api.problems import problem_of
from hearth.api.schemas import Encoding, ExecCommand, Problem
from hearth.control.exec_run import ExecOrder
from hearth.errors import InvalidInput
from hearth.execs import Exec, ExecState
from hearth.wire.messages import ExecRequest


def order_of(command: ExecCommand, secrets: Mapping[str, str]) -> ExecOrder:
    """Give what a command asks for; ``secrets`` are variables whose values are nobody's to see.

    Raises:
        InvalidInput: ``stdin`` is said to be base64 and is not, or fields do not go together.
    """
    if command.output_file is not None and not command.detach:
        raise InvalidInput(
            "invalid output_file",
            details="only a detached command's output goes to a file",
            resolution="say detach, or read the output from the answer",
            field="output_file",
        )
    if command.detach and command.linger_sec:
        raise InvalidInput(
            "invalid linger_sec",
            details="a detached command has no client to wait for",
            resolution="leave out linger_sec, or detach",
            field="linger_sec",
        )
    timeout_s = command.timeout_sec
    if timeout_s is None and not command.detach:
        timeout_s = DEFAULT_TIMEOUT_S
    return ExecOrder(
        request=ExecRequest(
            argv=list(command.cmd),
            env={**command.env, **secrets},
            cwd=command.cwd,
            user=command.user,
            output_file=command.output_file,
        ),
        stdin=bytes_of(command.stdin or "", command.stdin_encoding, field="stdin"),
        timeout_s=timeout_s,
        detached=command.detach,
        linger_s=command.linger_sec,
        stdin_open=command.keep_stdin,
    )


def bytes_of(text: str, encoding: Encoding, *, field: str) -> bytes:
    """Give the bytes that a text stands for.

    Raises:
        InvalidInput: it is said to be base64 and is not, or is no text.
    """
    try:
        return text.encode() if encoding == "utf-8" else base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidInput(
            f"invalid {field}",
            details=f"{field}: not {encoding}: {error}",
            resolution="send base64 with padding, or text",
            field=field,
        ) from error


def signal_number(wanted: str | int) -> int:
    """Give the number of a signal named as in signal(7).

    Raises:
        InvalidInput: there is none of that name.
    """
    if isinstance(wanted, int):
        return wanted
    try:
        return signal.Signals[f"SIG{wanted.removeprefix('SIG')}"].value
    except KeyError as error:
        raise InvalidInput(
            "no such signal",
            details=f"signal {wanted!r}",
            resolution="use a name such as TERM, INT or HUP, or a number from 1 to 64",
            field="signal",
        ) from error


def exec_view(found: Exec) -> ExecView:
    """Give a command as the API tells of it."""
    return ExecView(
        id=found.id,
        sandbox_id=found.sandbox_id,
        cmd=list(found.argv),
        state=found.state.value,
        created_at=found.created_at,
        exit_code=found.exit_code,
        problem=_problem_of(found),
        ended_at=found.ended_at,
        cwd=found.cwd,
        user=found.user,
        timeout_sec=found.timeout_s,
        kept=found.kept,
        detached=found.detached,
        linger_sec=found.linger_s,
        stdin_open=found.stdin_open and found.state is ExecState.RUNNING,
        output_file=found.output_file,
        first_cursor=found.log_start,
        cursor=found.output_bytes,
    )


def _problem_of(found: Exec) -> Problem | None:
    return None if found.failure is None else problem_of(found.failure.error(), "")
