"""The operations as values: arguments become a request, a response becomes a value or a typed error. No I/O.

Both shells, ``Client`` and ``AsyncClient``, do nothing but carry these to the daemon and back.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypedDict

import msgspec

from hearth.api.exec_operations import DELETE_EXEC, EXEC, FEED_EXEC, GET_EXEC, KILL_EXEC, LIST_EXECS, READ_OUTPUT
from hearth.api.exec_schemas import ExecInput, ExecList, ExecView, KillExec, ListExecs, ReadOutput
from hearth.api.health_operations import HEALTH
from hearth.api.limits import DEFAULT_TIMEOUT_S, NDJSON
from hearth.api.sandbox_operations import CREATE_SANDBOX, DESTROY_SANDBOX, GET_SANDBOX, LIST_SANDBOXES
from hearth.api.schemas import (
    CreateSandbox,
    ExecCommand,
    ExecResult,
    Health,
    ListSandboxes,
    Nothing,
    SandboxList,
    SandboxView,
)
from hearth.errors import InvalidInput
from hearth.sdk.call import LONG_S, Call, call_of, checked
from hearth.sdk.http1 import HttpRequest
from hearth.sdk.secret_calls import SecretVariableOptions
from hearth.sdk.settings import SettingsOptions, described

BASE64_NOTE_BYTES = len(',"stdin_encoding":"base64"')
EXEC_GRACE_S = 30.0
"""How much longer than a command's own time limit its answer is waited for."""
LINGER_S = 30.0
"""How long a streamed command waits for us to come back when the connection is lost."""
FOLLOW_S = 86_400.0
"""A command that is followed may be silent for as long as it runs."""


class CreateOptions(SettingsOptions, total=False):
    """What ``create`` takes: see CreateSandbox of the API.

    ``from_`` names a checkpoint, or a sandbox to fork, whose image, CPUs and memory it then has; ``template`` what
    fills the options that are left out.
    """

    name: str | None
    from_: str | None
    template: str | None


class ExecOptions(TypedDict, total=False):
    """What ``run`` and ``stream`` take besides the command; ``timeout_sec`` in seconds, 1 to 86400."""

    env: Mapping[str, str]
    cwd: str | None
    user: str | None
    stdin: str | bytes | None
    timeout_sec: float | None
    secrets: Sequence[SecretVariableOptions]
    linger_sec: float
    keep_stdin: bool


class DetachOptions(ExecOptions, total=False):
    """What ``detach`` takes besides the command; ``output_file`` is one in the sandbox, in place of its log."""

    output_file: str | None


def create(options: CreateOptions) -> Call[SandboxView]:
    return described(CREATE_SANDBOX, CreateSandbox, options)


def list_page(*, labels: Mapping[str, str], cursor: str | None, limit: int) -> Call[SandboxList]:
    query = ListSandboxes(label=[f"{key}={value}" for key, value in labels.items()], cursor=cursor, limit=limit)
    return call_of(LIST_SANDBOXES, query)


def get(ref: str) -> Call[SandboxView]:
    return call_of(GET_SANDBOX, Nothing(), ref=ref)


def destroy(ref: str) -> Call[Nothing]:
    return call_of(DESTROY_SANDBOX, Nothing(), ref=ref, timeout_s=LONG_S)


def run(ref: str, cmd: Sequence[str], options: ExecOptions) -> Call[ExecResult]:
    command = _command(cmd, options)
    return call_of(EXEC, command, ref=ref, timeout_s=_patience_s(command))


def stream(ref: str, cmd: Sequence[str], options: ExecOptions) -> HttpRequest:
    command = _command(cmd, {"linger_sec": LINGER_S, **options})
    return call_of(EXEC, command, ref=ref, timeout_s=_patience_s(command), accept=NDJSON).request


def detach(ref: str, cmd: Sequence[str], options: DetachOptions) -> Call[ExecView]:
    call = call_of(EXEC, _command(cmd, {**options, "detach": True}), ref=ref, timeout_s=LONG_S)  # type: ignore[typeddict-unknown-key]
    return Call(request=replace(call.request, idempotency_key=os.urandom(16).hex()), gives=ExecView)


def execs_page(ref: str, *, cursor: str | None, limit: int) -> Call[ExecList]:
    return call_of(LIST_EXECS, ListExecs(cursor=cursor, limit=limit), ref=ref)


def get_exec(exec_id: str) -> Call[ExecView]:
    return call_of(GET_EXEC, Nothing(), ref=exec_id, what="command")


def output(exec_id: str, *, after: int, follow: bool, attach: bool = False) -> HttpRequest:
    query = checked(ReadOutput, {"after": after, "follow": follow, "attach": attach})
    return call_of(READ_OUTPUT, query, ref=exec_id, what="command", timeout_s=FOLLOW_S, accept=NDJSON).request


def feed(exec_id: str, data: str | bytes, *, eof: bool) -> Call[Nothing]:
    encoded = {name.replace("stdin_", "").replace("stdin", "data"): text for name, text in _stdin(data).items()}
    return call_of(
        FEED_EXEC, checked(ExecInput, {**encoded, "eof": eof}), ref=exec_id, what="command", timeout_s=LONG_S
    )


def kill(exec_id: str, signal: str | int) -> Call[ExecView]:
    return call_of(KILL_EXEC, checked(KillExec, {"signal": signal}), ref=exec_id, what="command", timeout_s=LONG_S)


def delete_exec(exec_id: str) -> Call[Nothing]:
    return call_of(DELETE_EXEC, Nothing(), ref=exec_id, what="command")


def health() -> Call[Health]:
    return call_of(HEALTH, Nothing())


def _patience_s(command: ExecCommand) -> float:
    return (DEFAULT_TIMEOUT_S if command.timeout_sec is None else command.timeout_sec) + EXEC_GRACE_S


def _command(cmd: Sequence[str], options: ExecOptions) -> ExecCommand:
    if isinstance(cmd, str):
        raise InvalidInput(
            "invalid cmd",
            details="cmd is one string; hearth starts programs without a shell",
            resolution="pass a list such as ['sh', '-c', 'echo hello']",
            field="cmd",
        )
    values: dict[str, Any] = {**options, "cmd": list(cmd)}
    if isinstance(stdin := options.get("stdin"), str | bytes):
        values |= _stdin(stdin)
    return checked(ExecCommand, values)


def _stdin(given: str | bytes) -> dict[str, str]:
    """Give the members that carry it: text, or base64 where it is none or JSON would escape it to more than that."""
    text: str | None
    try:
        text, data = (given, given.encode()) if isinstance(given, str) else (given.decode(), given)
    except UnicodeEncodeError as error:
        raise InvalidInput(
            "invalid stdin",
            details=f"stdin is no text: {error.reason} at character {error.start}",
            resolution="pass bytes",
            field="stdin",
        ) from error
    except UnicodeDecodeError:
        text, data = None, given if isinstance(given, bytes) else b""
    encoded = base64.b64encode(data).decode("ascii")
    if text is not None and len(msgspec.json.encode(text)) <= len(encoded) + BASE64_NOTE_BYTES:
        return {"stdin": text}
    return {"stdin": encoded, "stdin_encoding": "base64"}
