"""The operations as values: arguments become a request, a response becomes a value or a typed error. No I/O.

Both shells, ``Client`` and ``AsyncClient``, do nothing but carry these to the daemon and back.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypedDict, TypeVar
from urllib.parse import quote, urlencode

import msgspec

from hearth.api.limits import JSON, MAX_BODY_BYTES, NDJSON
from hearth.api.operations import (
    CREATE_SANDBOX,
    DESTROY_SANDBOX,
    EXEC,
    GET_SANDBOX,
    HEALTH,
    LIST_IMAGES,
    LIST_SANDBOXES,
    Operation,
)
from hearth.api.problems import error_from
from hearth.api.refusals import refusal
from hearth.api.schemas import (
    CreateSandbox,
    ExecCommand,
    ExecResult,
    Health,
    ImageList,
    ListSandboxes,
    Nothing,
    Problem,
    SandboxList,
    SandboxView,
)
from hearth.errors import HearthError, InvalidInput, TooLarge, Unavailable
from hearth.sdk.http1 import HttpRequest, HttpResponse

Input = TypeVar("Input")
Output = TypeVar("Output")

QUICK_S = 30.0
CREATE_S = 600.0
BASE64_NOTE_BYTES = len(',"stdin_encoding":"base64"')
EXEC_GRACE_S = 30.0
"""How much longer than a command's own time limit its answer is waited for."""


class CreateOptions(TypedDict, total=False):
    """What ``create`` takes: see CreateSandbox of the API. Memory in MiB."""

    name: str | None
    image: str
    cpus: int
    memory_mb: int
    env: Mapping[str, str]
    labels: Mapping[str, str]


class ExecOptions(TypedDict, total=False):
    """What ``run`` and ``start`` take besides the command; ``timeout_sec`` in seconds, 1 to 86400."""

    env: Mapping[str, str]
    cwd: str | None
    user: str | None
    stdin: str | bytes | None
    timeout_sec: float


@dataclass(frozen=True, kw_only=True)
class Call(Generic[Output]):
    """A request and how its answer is to be read."""

    request: HttpRequest
    gives: type[Output]

    def read(self, response: HttpResponse) -> Output:
        """Give the value of an answer.

        Raises:
            HearthError: the daemon's problem, as the class its code names.
            Unavailable: what answered is no hearth daemon.
        """
        if not 200 <= response.status < 300:
            raise read_problem(response)
        try:
            return msgspec.json.decode(response.body or b"{}", type=self.gives)
        except msgspec.DecodeError as error:
            raise _stranger(response.status) from error


def read_problem(response: HttpResponse) -> HearthError:
    """Give the error that an answer of status 400 or more stands for."""
    try:
        return error_from(msgspec.json.decode(response.body, type=Problem))
    except msgspec.DecodeError:
        return _stranger(response.status)


def create(options: CreateOptions) -> Call[SandboxView]:
    return _call(CREATE_SANDBOX, _check(CreateSandbox, dict(options)), timeout_s=CREATE_S)


def list_page(*, labels: Mapping[str, str], cursor: str | None, limit: int) -> Call[SandboxList]:
    query = ListSandboxes(label=[f"{key}={value}" for key, value in labels.items()], cursor=cursor, limit=limit)
    return _call(LIST_SANDBOXES, query)


def get(ref: str) -> Call[SandboxView]:
    return _call(GET_SANDBOX, Nothing(), ref=ref)


def destroy(ref: str) -> Call[Nothing]:
    return _call(DESTROY_SANDBOX, Nothing(), ref=ref, timeout_s=CREATE_S)


def run(ref: str, cmd: Sequence[str], options: ExecOptions) -> Call[ExecResult]:
    command = _command(cmd, options)
    return _call(EXEC, command, ref=ref, timeout_s=command.timeout_sec + EXEC_GRACE_S)


def start(ref: str, cmd: Sequence[str], options: ExecOptions) -> HttpRequest:
    command = _command(cmd, options)
    return _call(EXEC, command, ref=ref, timeout_s=command.timeout_sec + EXEC_GRACE_S, accept=NDJSON).request


def images() -> Call[ImageList]:
    return _call(LIST_IMAGES, Nothing())


def health() -> Call[Health]:
    return _call(HEALTH, Nothing())


def _call(
    operation: Operation[Input, Output],
    given: Input,
    *,
    ref: str | None = None,
    timeout_s: float = QUICK_S,
    accept: str = JSON,
) -> Call[Output]:
    target = operation.path
    if ref is not None:
        target = target.replace("{ref}", quote(_check_ref(ref), safe=""))
    body = b""
    if operation.has_body:
        body = msgspec.json.encode(given)
        if len(body) > MAX_BODY_BYTES:
            raise TooLarge(
                "the request is too large",
                details=f"it takes {len(body)} bytes, at most {MAX_BODY_BYTES} are possible",
                resolution="send less input, or in parts",
            )
    elif query := urlencode(_plain(given), doseq=True):
        target += f"?{query}"
    request = HttpRequest(method=operation.method, target=target, timeout_s=timeout_s, accept=accept, body=body)
    return Call(request=request, gives=operation.gives)


def _plain(given: object) -> dict[str, Any]:
    values: dict[str, Any] = msgspec.to_builtins(given)
    return {name: value for name, value in values.items() if value is not None}


def _check_ref(ref: str) -> str:
    if not ref or ref in (".", ".."):
        raise InvalidInput(
            "invalid sandbox",
            details=f"{ref!r} is neither an id nor a name",
            resolution="'hearth list' shows the sandboxes",
            field="sandbox",
        )
    return ref


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
    return _check(ExecCommand, values)


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


def _check(schema: type[Input], values: dict[str, Any]) -> Input:
    """Check arguments against the contract before anything travels."""
    try:
        return msgspec.convert(values, schema)
    except msgspec.ValidationError as error:
        raise refusal(str(error), values, whole="arguments") from error


def _stranger(status: int) -> Unavailable:
    return Unavailable(
        "what answered is not a hearth daemon",
        details=f"status {status} with a body that is not hearth's",
        resolution="check HEARTH_URL",
    )
