"""Sessions of a sandbox (terminals and piped ones), and the messages of the WebSockets they are reached by.

Messages are JSON objects in text messages; what the process reads and writes travels in binary ones.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from msgspec import Meta, Struct

from hearth.api.exec_schemas import MAX_CURSOR, SignalName
from hearth.api.limits import MAX_ARGUMENTS, MAX_TERMINAL_SIZE
from hearth.api.patterns import ASSIGNMENT
from hearth.api.schemas import NO_NUL, Environment, Text
from hearth.api.secret_schemas import SecretVariable
from hearth.bounds import MAX_EXEC_TIMEOUT_S, MAX_SECRETS_USED

SessionId = Annotated[str, Meta(pattern=NO_NUL, min_length=1, max_length=64)]
Size = Annotated[int, Meta(ge=1, le=MAX_TERMINAL_SIZE)]
Directory = Annotated[str, Meta(pattern=NO_NUL, min_length=1, max_length=4096)]
UserName = Annotated[str, Meta(pattern=NO_NUL, min_length=1, max_length=256)]
Idle = Annotated[
    int,
    Meta(ge=0, le=MAX_EXEC_TIMEOUT_S, description="Seconds without a client until it is killed; 0 is never."),
]
Position = Annotated[
    int, Meta(ge=0, le=MAX_CURSOR, description="Where the output is to go on: bytes counted from the session's start.")
]


class SessionView(Struct, frozen=True, kw_only=True):
    """One session; ``argv`` is its words joined by a space.

    ``restarts`` and ``healthy`` are told of the sandbox's init script alone, whose session is ``init``. One that has
    ended is remembered for half a minute.
    """

    session_id: str
    argv: str
    tty: bool
    running: bool
    attached: bool
    created_at: datetime
    exit_code: int | None = None
    restarts: int | None = None
    healthy: bool | None = None


class SessionList(Struct, frozen=True, kw_only=True):
    items: list[SessionView]


class OpenTerminal(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Query of a terminal.

    ``session`` attaches to that one, in place of whoever is attached unless ``if_detached``; ``after`` leaves out the
    output before a position. ``new`` starts one. With neither it is the newest terminal that nobody is attached to,
    else a new one.

    A new one runs ``cmd`` (once for each word; else a login shell, bash where there is one) with ``env`` (once for each
    ``NAME=value``), in ``cwd``, as ``user``.
    """

    session: SessionId | None = None
    new: bool = False
    if_detached: bool = False
    after: Position | None = None
    rows: Size | None = None
    cols: Size | None = None
    cmd: Annotated[list[Text], Meta(max_length=MAX_ARGUMENTS)] = []
    env: Annotated[list[Annotated[str, Meta(pattern=ASSIGNMENT)]], Meta(max_length=MAX_ARGUMENTS)] = []
    cwd: Directory | None = None
    user: UserName | None = None
    max_idle_sec: Idle = 0


class OpenPiped(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Query of a piped session: ``session`` attaches; without it the first message says what to run."""

    session: SessionId | None = None
    if_detached: bool = False
    after: Position | None = None


class Authenticate(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="type", tag="auth"):
    """The first message of a client that could set no header and put no token into the address."""

    token: str


class StartSession(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The first message of a new piped session (behind ``auth``): what to run. Stderr comes with stdout."""

    cmd: Annotated[list[Text], Meta(min_length=1, max_length=MAX_ARGUMENTS)]
    type: Literal["start"] = "start"
    env: Environment = {}
    cwd: Directory | None = None
    user: UserName | None = None
    max_idle_sec: Idle = 0
    secrets: Annotated[list[SecretVariable], Meta(max_length=MAX_SECRETS_USED)] = []


class Resize(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="type", tag="resize"):
    """The terminal's new size, in characters; a piped session has none."""

    rows: Size
    cols: Size


class SendSignal(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="type", tag="signal"):
    """A signal for the session's process group: a name such as INT or TERM, or a number."""

    signal: SignalName | Annotated[int, Meta(ge=1, le=64)]


class EndInput(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="type", tag="eof"):
    """The end of the input: closes a pipe, is typed (control-D) into a terminal."""


class SessionOpened(Struct, frozen=True, kw_only=True, tag_field="type", tag="session"):
    """Always the first message of the server: the session there is now.

    The output that follows begins at ``position``, so that ``after`` = position + the bytes that came resumes it
    without a gap and without anything twice. It is more than the ``after`` that was asked for where the last 64 KiB,
    which are kept for whoever comes back, no longer hold it.
    """

    session_id: str
    argv: str
    tty: bool
    running: bool
    created_at: datetime
    position: int | None = None
