"""Sessions of a sandbox and the WebSockets that lead to them. All wake it and need a key of scope ``exec``."""

from __future__ import annotations

from typing import Any

from hearth.api.life_operations import SANDBOX, WAKING
from hearth.api.operation import Conversation, Operation
from hearth.api.schemas import ErrorEvent, ExitEvent, Nothing
from hearth.api.session_schemas import (
    Authenticate,
    EndInput,
    OpenPiped,
    OpenTerminal,
    Resize,
    SendSignal,
    SessionList,
    SessionOpened,
    StartSession,
)
from hearth.errors import Code
from hearth.tenancy import KeyScope

LIST_SESSIONS = Operation(
    name="list_sessions",
    method="GET",
    path=f"{SANDBOX}/sessions",
    summary="List the sessions of a sandbox: terminals, piped ones, and its init script.",
    takes=Nothing,
    gives=SessionList,
    errors=WAKING,
    scope=KeyScope.EXEC,
)
KILL_SESSION = Operation(
    name="kill_session",
    method="DELETE",
    path=f"{SANDBOX}/sessions/{{session}}",
    summary="Kill a session's process group.",
    takes=Nothing,
    gives=Nothing,
    statuses=(204,),
    errors=WAKING,
    scope=KeyScope.EXEC,
)
OPEN_TERMINAL = Operation(
    name="open_terminal",
    method="GET",
    path=f"{SANDBOX}/ws",
    summary="Change to a WebSocket that is a terminal in the sandbox; who leaves detaches, the session goes on.",
    takes=OpenTerminal,
    gives=Nothing,
    statuses=(101,),
    errors=(Code.NOT_FOUND, Code.QUOTA_EXCEEDED),
    scope=KeyScope.EXEC,
    conversation=Conversation(
        hears=(Authenticate, Resize, SendSignal, EndInput), says=(SessionOpened, ExitEvent, ErrorEvent)
    ),
)
OPEN_PIPED = Operation(
    name="open_piped",
    method="GET",
    path=f"{SANDBOX}/exec/ws",
    summary="Change to a WebSocket that is the input and output of a command that outlives its connection.",
    takes=OpenPiped,
    gives=Nothing,
    statuses=(101,),
    errors=(Code.NOT_FOUND, Code.QUOTA_EXCEEDED),
    scope=KeyScope.EXEC,
    conversation=Conversation(
        hears=(Authenticate, StartSession, SendSignal, EndInput), says=(SessionOpened, ExitEvent, ErrorEvent)
    ),
)

OPERATIONS: tuple[Operation[Any, Any], ...] = (LIST_SESSIONS, KILL_SESSION, OPEN_TERMINAL, OPEN_PIPED)
