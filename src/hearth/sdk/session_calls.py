"""The operations on sessions as values, and the messages of their WebSockets; the rest is in ``calls``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypedDict, TypeVar
from urllib.parse import quote

import msgspec

from hearth.api.limits import MAX_TERMINAL_SIZE
from hearth.api.schemas import ErrorEvent, ExitEvent, Nothing
from hearth.api.session_operations import KILL_SESSION, LIST_SESSIONS, OPEN_PIPED, OPEN_TERMINAL
from hearth.api.session_schemas import (
    EndInput,
    OpenPiped,
    OpenTerminal,
    Resize,
    SendSignal,
    SessionList,
    SessionOpened,
    StartSession,
)
from hearth.errors import InvalidInput
from hearth.sdk.call import LONG_S, Call, call_of, check_ref, checked
from hearth.sdk.http1 import HttpRequest
from hearth.sdk.secret_calls import SecretVariableOptions

LINGER_S = 30.0
"""How long a session whose connection was lost is tried to be come back to."""
INPUT_BYTES = 65_536
"""Of input in one message."""
Message = TypeVar("Message")
Told = SessionOpened | ExitEvent | ErrorEvent


class TerminalOptions(TypedDict, total=False):
    """What a new terminal takes: its size, the command (else a login shell) and what that starts with.

    It is killed after ``max_idle_sec`` seconds without a client; 0 is never.
    """

    rows: int | None
    cols: int | None
    cmd: Sequence[str]
    env: Mapping[str, str]
    cwd: str | None
    user: str | None
    max_idle_sec: int


class PipedOptions(TypedDict, total=False):
    """What a new piped session takes besides its command."""

    env: Mapping[str, str]
    cwd: str | None
    user: str | None
    max_idle_sec: int
    secrets: Sequence[SecretVariableOptions]


def listing(ref: str) -> Call[SessionList]:
    return call_of(LIST_SESSIONS, Nothing(), ref=ref, timeout_s=LONG_S)


def kill(ref: str, session: str) -> Call[Nothing]:
    path = KILL_SESSION.path.replace("{session}", quote(check_ref(session, "session"), safe=""))
    return call_of(replace(KILL_SESSION, path=path), Nothing(), ref=ref, timeout_s=LONG_S)


def new_terminal(ref: str, options: TerminalOptions) -> HttpRequest:
    if isinstance(options.get("cmd"), str):
        raise _one_string()
    env = [f"{name}={value}" for name, value in options.get("env", {}).items()]
    wanted = checked(OpenTerminal, {**options, "cmd": list(options.get("cmd", ())), "env": env, "new": True})
    return call_of(OPEN_TERMINAL, wanted, ref=ref, timeout_s=LONG_S).request


def terminal(ref: str, **wanted: Any) -> HttpRequest:
    """Ask for a terminal that there is: ``session``, ``after``, ``if_detached``, ``rows``, ``cols``."""
    return call_of(OPEN_TERMINAL, checked(OpenTerminal, wanted), ref=ref, timeout_s=LONG_S).request


def piped(ref: str, **wanted: Any) -> HttpRequest:
    """Ask for a piped session: ``session``, ``after``, ``if_detached``, or none of it for a new one."""
    return call_of(OPEN_PIPED, checked(OpenPiped, wanted), ref=ref, timeout_s=LONG_S).request


def start(cmd: Sequence[str], options: PipedOptions) -> str:
    """Say what a new piped session is to run."""
    if isinstance(cmd, str):
        raise _one_string()
    return _encoded(checked(StartSession, {**options, "cmd": list(cmd)}))


def resize(rows: int, cols: int) -> str:
    if not (1 <= rows <= MAX_TERMINAL_SIZE and 1 <= cols <= MAX_TERMINAL_SIZE):
        raise InvalidInput("invalid size", details=f"{rows} rows, {cols} columns", field="rows")
    return _encoded(Resize(rows=rows, cols=cols))


def signal(name: str | int) -> str:
    return _encoded(checked(SendSignal, {"type": "signal", "signal": name}))


def end_input() -> str:
    return _encoded(EndInput())


def told(text: str) -> Told | None:
    """Read what the server says; None: nothing we know."""
    try:
        kind = msgspec.json.decode(text, type=dict[str, Any]).get("type")
        schema = {"session": SessionOpened, "exit": ExitEvent, "error": ErrorEvent}.get(str(kind))
        return None if schema is None else msgspec.json.decode(text, type=schema)
    except msgspec.DecodeError:
        return None


def _encoded(message: object) -> str:
    return msgspec.json.encode(message).decode()


def _one_string() -> InvalidInput:
    return InvalidInput(
        "invalid cmd",
        details="cmd is one string; hearth starts programs without a shell",
        resolution="pass a list such as ['bash', '-l']",
        field="cmd",
    )
