"""Commands: run them, look at them, follow their output, signal them."""

from __future__ import annotations

from typing import Any

from hearth.api.exec_schemas import ExecInput, ExecList, ExecView, KillExec, ListExecs, ReadOutput
from hearth.api.limits import PREFIX
from hearth.api.operation import Operation
from hearth.api.schemas import (
    ErrorEvent,
    ExecCommand,
    ExecResult,
    ExitEvent,
    GapEvent,
    Nothing,
    RunningEvent,
    StderrEvent,
    StdoutEvent,
)
from hearth.errors import Code
from hearth.tenancy import KeyScope

ONE = f"{PREFIX}/execs/{{ref}}"
REACHING = (
    Code.NOT_FOUND,
    Code.CONFLICT,
    Code.GUEST_FAILED,
    Code.ENGINE_FAILED,
    Code.HOST_UNFIT,
    Code.TIMEOUT,
    Code.NO_SPACE,
)
"""What may keep a command in a sandbox from being reached."""

EXEC = Operation(
    name="exec",
    method="POST",
    scope=KeyScope.EXEC,
    path=f"{PREFIX}/sandboxes/{{ref}}/exec",
    summary="Run a command; with Accept: application/x-ndjson its output streams and ends in one exit or error line.",
    takes=ExecCommand,
    gives=ExecResult,
    statuses=(200, 202),
    also_gives={202: ExecView},
    errors=(*REACHING, Code.FORBIDDEN, Code.START_FAILED, Code.CANCELLED),
    streams=(StdoutEvent, StderrEvent, GapEvent, ExitEvent, ErrorEvent),
)
LIST_EXECS = Operation(
    name="list_execs",
    method="GET",
    path=f"{PREFIX}/sandboxes/{{ref}}/execs",
    summary="List the commands of a sandbox, oldest first, a page at a time; wakes nothing.",
    takes=ListExecs,
    gives=ExecList,
    errors=(Code.NOT_FOUND,),
)
GET_EXEC = Operation(
    name="get_exec",
    method="GET",
    path=ONE,
    summary="Show one command; wakes nothing.",
    takes=Nothing,
    gives=ExecView,
    errors=(Code.NOT_FOUND,),
)
READ_OUTPUT = Operation(
    name="read_output",
    method="GET",
    path=f"{ONE}/output",
    summary="Give a command's output after a cursor, each byte once, and follow it to its exit or error line.",
    takes=ReadOutput,
    gives=Nothing,
    statuses=(200,),
    errors=(Code.NOT_FOUND,),
    streams=(StdoutEvent, StderrEvent, GapEvent, RunningEvent, ExitEvent, ErrorEvent),
)
FEED_EXEC = Operation(
    name="feed_exec",
    method="POST",
    scope=KeyScope.EXEC,
    path=f"{ONE}/stdin",
    summary="Give a command that was started with keep_stdin more input, or the end of it.",
    takes=ExecInput,
    gives=Nothing,
    statuses=(204,),
    errors=REACHING,
)
KILL_EXEC = Operation(
    name="kill_exec",
    method="POST",
    scope=KeyScope.EXEC,
    path=f"{ONE}/kill",
    summary="Send a signal to a command's process group; one that has ended is given as it is.",
    takes=KillExec,
    gives=ExecView,
    errors=REACHING,
    body_optional=True,
)
DELETE_EXEC = Operation(
    name="delete_exec",
    method="DELETE",
    scope=KeyScope.EXEC,
    path=ONE,
    summary="Forget a command that has ended, and its output.",
    takes=Nothing,
    gives=Nothing,
    statuses=(204,),
    errors=(Code.NOT_FOUND, Code.CONFLICT),
)

OPERATIONS: tuple[Operation[Any, Any], ...] = (
    EXEC,
    LIST_EXECS,
    GET_EXEC,
    READ_OUTPUT,
    FEED_EXEC,
    KILL_EXEC,
    DELETE_EXEC,
)
