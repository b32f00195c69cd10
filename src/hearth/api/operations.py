"""The table of operations: every call of the API, once, for the server's routes, the SDK and OpenAPI alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

from hearth.api.limits import PREFIX
from hearth.api.schemas import (
    CreateSandbox,
    ErrorEvent,
    ExecCommand,
    ExecResult,
    ExitEvent,
    Health,
    ImageList,
    ListSandboxes,
    Liveness,
    Nothing,
    Readiness,
    SandboxList,
    SandboxView,
    StderrEvent,
    StdoutEvent,
)
from hearth.errors import Code

Input = TypeVar("Input")
Output = TypeVar("Output")
Method = Literal["GET", "POST", "DELETE"]


@dataclass(frozen=True, kw_only=True)
class Operation(Generic[Input, Output]):
    """One call.

    Args:
        takes: the body of a POST, the query of everything else.
        gives: the body of the answer; ``Nothing`` means 204.
        statuses: those of success, the usual one first.
        errors: the codes it answers besides those every call may answer.
        public: needs no token.
        streams: the schemas of its lines when the caller accepts NDJSON.
    """

    name: str
    method: Method
    path: str
    summary: str
    takes: type[Input]
    gives: type[Output]
    statuses: tuple[int, ...] = (200,)
    errors: tuple[Code, ...] = ()
    public: bool = False
    streams: tuple[type[Any], ...] = ()

    @property
    def has_body(self) -> bool:
        return self.method == "POST"

    @property
    def every_error(self) -> tuple[Code, ...]:
        """All codes this call may answer, those of every call included."""
        usual = [Code.INVALID, Code.INTERNAL]
        if not self.public:
            usual += [Code.UNAUTHENTICATED, Code.UNAVAILABLE]
        if self.has_body:
            usual.append(Code.TOO_LARGE)
        return tuple(dict.fromkeys([*usual, *self.errors]))


CREATE_SANDBOX = Operation(
    name="create_sandbox",
    method="POST",
    path=f"{PREFIX}/sandboxes",
    summary="Create a sandbox and wait until it runs; the same name again gives the existing one with 200.",
    takes=CreateSandbox,
    gives=SandboxView,
    statuses=(201, 200),
    errors=(
        Code.NOT_FOUND,
        Code.CONFLICT,
        Code.CANCELLED,
        Code.QUOTA_EXCEEDED,
        Code.NO_SPACE,
        Code.ENGINE_FAILED,
        Code.GUEST_FAILED,
        Code.HOST_UNFIT,
        Code.TIMEOUT,
    ),
)
LIST_SANDBOXES = Operation(
    name="list_sandboxes",
    method="GET",
    path=f"{PREFIX}/sandboxes",
    summary="List the caller's sandboxes, oldest first, a page at a time.",
    takes=ListSandboxes,
    gives=SandboxList,
)
GET_SANDBOX = Operation(
    name="get_sandbox",
    method="GET",
    path=f"{PREFIX}/sandboxes/{{ref}}",
    summary="Show one sandbox, by id or name, with the timings of its creation.",
    takes=Nothing,
    gives=SandboxView,
    errors=(Code.NOT_FOUND,),
)
DESTROY_SANDBOX = Operation(
    name="destroy_sandbox",
    method="DELETE",
    path=f"{PREFIX}/sandboxes/{{ref}}",
    summary="Destroy a sandbox and all it holds.",
    takes=Nothing,
    gives=Nothing,
    statuses=(204,),
    errors=(Code.NOT_FOUND, Code.CONFLICT, Code.ENGINE_FAILED, Code.TIMEOUT),
)
EXEC = Operation(
    name="exec",
    method="POST",
    path=f"{PREFIX}/sandboxes/{{ref}}/exec",
    summary="Run a command; with Accept: application/x-ndjson its output streams and ends in one exit or error line.",
    takes=ExecCommand,
    gives=ExecResult,
    errors=(
        Code.NOT_FOUND,
        Code.FORBIDDEN,
        Code.CONFLICT,
        Code.START_FAILED,
        Code.GUEST_FAILED,
        Code.ENGINE_FAILED,
        Code.TIMEOUT,
        Code.NO_SPACE,
    ),
    streams=(StdoutEvent, StderrEvent, ExitEvent, ErrorEvent),
)
LIST_IMAGES = Operation(
    name="list_images",
    method="GET",
    path=f"{PREFIX}/images",
    summary="List the images sandboxes can be made of.",
    takes=Nothing,
    gives=ImageList,
)
HEALTH = Operation(
    name="health",
    method="GET",
    path="/health",
    summary="Tell that the daemon is up, for how long and with how many sandboxes.",
    takes=Nothing,
    gives=Health,
    public=True,
)
HEALTHZ = Operation(
    name="healthz",
    method="GET",
    path="/healthz",
    summary="Tell that the process answers.",
    takes=Nothing,
    gives=Liveness,
    public=True,
)
LIVEZ = Operation(
    name="livez",
    method="GET",
    path="/livez",
    summary="Tell that the process answers.",
    takes=Nothing,
    gives=Liveness,
    public=True,
)
READYZ = Operation(
    name="readyz",
    method="GET",
    path="/readyz",
    summary="Tell whether the daemon could do its work now: 503 with the reasons when it could not.",
    takes=Nothing,
    gives=Readiness,
    statuses=(200, 503),
    public=True,
)

OPERATIONS: tuple[Operation[Any, Any], ...] = (
    CREATE_SANDBOX,
    LIST_SANDBOXES,
    GET_SANDBOX,
    DESTROY_SANDBOX,
    EXEC,
    LIST_IMAGES,
    HEALTH,
    HEALTHZ,
    LIVEZ,
    READYZ,
)
