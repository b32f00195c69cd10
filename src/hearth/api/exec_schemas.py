"""Commands that were run: what is told of them, and what can be asked of them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from msgspec import Meta, Struct

from hearth.api.limits import DEFAULT_LIST_LIMIT, MAX_LIST_LIMIT
from hearth.api.patterns import SIGNAL
from hearth.api.schemas import Encoding, Problem

MAX_CURSOR = 2**63 - 1
ExecStateName = Literal["running", "exited", "failed"]
SignalName = Annotated[
    str,
    Meta(
        pattern=SIGNAL,
        description="A name such as TERM or SIGINT; in full as in signal(7).",
    ),
]


class ExecView(Struct, frozen=True, kw_only=True):
    """One command.

    Cursors count the bytes of both outputs together: the output that is still there begins at ``first_cursor``, and so
    far it ends at ``cursor``. ``kept`` is one that outlives connections. ``problem`` tells why one that ``failed`` did
    not come to its end. Its environment is not remembered.
    """

    id: str
    sandbox_id: str
    cmd: list[str]
    state: ExecStateName
    created_at: datetime
    exit_code: int | None = None
    problem: Problem | None = None
    ended_at: datetime | None = None
    cwd: str | None = None
    user: str | None = None
    timeout_sec: float | None = None
    kept: bool = False
    detached: bool = False
    linger_sec: float = 0
    stdin_open: bool = False
    output_file: str | None = None
    first_cursor: int = 0
    cursor: int = 0


class ExecList(Struct, frozen=True, kw_only=True):
    """One page; ``next_cursor`` is absent on the last one."""

    items: list[ExecView]
    next_cursor: str | None = None


class ListExecs(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Query of a list of commands; ``state`` may come several times."""

    state: list[ExecStateName] = []
    limit: Annotated[int, Meta(ge=1, le=MAX_LIST_LIMIT)] = DEFAULT_LIST_LIMIT
    cursor: Annotated[str, Meta(max_length=512)] | None = None


class ReadOutput(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Query of a command's output: what comes after a cursor.

    Without ``follow`` it ends with what there is. ``attach`` makes this its client, in place of the one before: the
    command waits for it where it reads slowly, and is killed ``linger_sec`` after it left.
    """

    after: Annotated[int, Meta(ge=0, le=MAX_CURSOR)] = 0
    follow: bool = True
    attach: bool = False


class ExecInput(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """More input for a command; ``eof`` ends it."""

    data: str = ""
    encoding: Encoding = "utf-8"
    eof: bool = False


class KillExec(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The signal for a command's process group: a name, or a number from 1 to 64."""

    signal: SignalName | Annotated[int, Meta(ge=1, le=64)] = "KILL"
