"""The operations as values: arguments become a request, a response becomes a value or a typed error. No I/O.

Both shells, ``Client`` and ``AsyncClient``, do nothing but carry these to the daemon and back.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

import msgspec

from hearth.api.limits import NDJSON
from hearth.api.operations import (
    CREATE_SANDBOX,
    DESTROY_SANDBOX,
    EXEC,
    GET_SANDBOX,
    HEALTH,
    LIST_IMAGES,
    LIST_SANDBOXES,
)
from hearth.api.schemas import (
    CreateSandbox,
    ExecCommand,
    ExecResult,
    Health,
    ImageList,
    ListSandboxes,
    Nothing,
    SandboxList,
    SandboxView,
)
from hearth.errors import InvalidInput
from hearth.sdk.call import LONG_S, Call, call_of, checked
from hearth.sdk.http1 import HttpRequest
from hearth.sdk.secret_calls import SecretOptions, SecretVariableOptions
from hearth.sdk.volume_calls import NewVolumeOptions, VolumeOptions

BASE64_NOTE_BYTES = len(',"stdin_encoding":"base64"')
EXEC_GRACE_S = 30.0
"""How much longer than a command's own time limit its answer is waited for."""


class CreateOptions(TypedDict, total=False):
    """What ``create`` takes: see CreateSandbox of the API. Memory in MiB, times in seconds.

    ``from_`` names a checkpoint, or a sandbox to fork, whose image, CPUs and memory it then has.
    """

    name: str | None
    from_: str | None
    image: str | None
    cpus: int | None
    memory_mb: int | None
    env: Mapping[str, str]
    labels: Mapping[str, str]
    keep_hot: bool
    ttl_s: int | None
    idle_pause_s: float | None
    idle_stop_s: float | None
    net_policy: Mapping[str, object] | None
    volumes: Sequence[VolumeOptions]
    new_volumes: Sequence[NewVolumeOptions]
    secrets: Sequence[SecretOptions]


class ExecOptions(TypedDict, total=False):
    """What ``run`` and ``stream`` take besides the command; ``timeout_sec`` in seconds, 1 to 86400."""

    env: Mapping[str, str]
    cwd: str | None
    user: str | None
    stdin: str | bytes | None
    timeout_sec: float
    secrets: Sequence[SecretVariableOptions]


def create(options: CreateOptions) -> Call[SandboxView]:
    values = {"from" if name == "from_" else name: value for name, value in options.items()}
    return call_of(CREATE_SANDBOX, checked(CreateSandbox, values), timeout_s=LONG_S)


def list_page(*, labels: Mapping[str, str], cursor: str | None, limit: int) -> Call[SandboxList]:
    query = ListSandboxes(label=[f"{key}={value}" for key, value in labels.items()], cursor=cursor, limit=limit)
    return call_of(LIST_SANDBOXES, query)


def get(ref: str) -> Call[SandboxView]:
    return call_of(GET_SANDBOX, Nothing(), ref=ref)


def destroy(ref: str) -> Call[Nothing]:
    return call_of(DESTROY_SANDBOX, Nothing(), ref=ref, timeout_s=LONG_S)


def run(ref: str, cmd: Sequence[str], options: ExecOptions) -> Call[ExecResult]:
    command = _command(cmd, options)
    return call_of(EXEC, command, ref=ref, timeout_s=command.timeout_sec + EXEC_GRACE_S)


def stream(ref: str, cmd: Sequence[str], options: ExecOptions) -> HttpRequest:
    command = _command(cmd, options)
    return call_of(EXEC, command, ref=ref, timeout_s=command.timeout_sec + EXEC_GRACE_S, accept=NDJSON).request


def images() -> Call[ImageList]:
    return call_of(LIST_IMAGES, Nothing())


def health() -> Call[Health]:
    return call_of(HEALTH, Nothing())


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
