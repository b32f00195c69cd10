"""The bodies and queries of the HTTP contract.

What comes in refuses unknown fields; what goes out may grow, so readers ignore what they do not know. Sizes are MiB
where a name ends in ``_mb``, times are seconds, ``_ms`` milliseconds, moments RFC 3339.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from msgspec import Meta, Struct, field

from hearth.api.limits import (
    DEFAULT_LIST_LIMIT,
    MAX_ARGUMENTS,
    MAX_LABEL_LENGTH,
    MAX_LABELS,
    MAX_LINGER_S,
    MAX_LIST_LIMIT,
    MAX_TTL_S,
    MAX_VOLUMES,
    MIN_TIMEOUT_S,
)
from hearth.api.net_schemas import NetPolicy, NetPolicyView
from hearth.api.outfit_schemas import DiskMb, InitCommands, InitTime, NewFiles
from hearth.api.secret_schemas import SecretUse, SecretVariable
from hearth.api.volume_schemas import AttachVolume, MountedVolume, NewVolume
from hearth.bounds import MAX_CPUS, MAX_EXEC_TIMEOUT_S, MAX_MEMORY_MIB, MAX_SECRETS_USED, MIN_MEMORY_MIB

NO_NUL = r"^[^\x00]*$"
ONE_LINE = r"^[^\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]*$"
"""Text that stays where it is shown: without controls, ends of lines, and what turns the way of writing round."""
END = r"$(?!\n)"
"""The end of a pattern: Python's ``$`` alone would let a newline follow; to ECMA-262 readers this means the same."""
NAME = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?" + END
ENV_NAME = "^[A-Za-z_][A-Za-z0-9_]*" + END
LABEL_KEY = r"^[A-Za-z0-9]([A-Za-z0-9._/-]*[A-Za-z0-9])?" + END
LABEL_QUERY = "^[^=]+=.*$"
Name = Annotated[
    str,
    Meta(
        pattern=NAME,
        min_length=1,
        max_length=63,
        description="A DNS label: 1 to 63 of a-z, 0-9 and inner hyphens.",
    ),
]
Text = Annotated[str, Meta(pattern=NO_NUL)]
EnvName = Annotated[str, Meta(pattern=ENV_NAME, max_length=256)]
Environment = Annotated[dict[EnvName, Text], Meta(description="Environment variables, name to value.")]
LabelKey = Annotated[str, Meta(pattern=LABEL_KEY, max_length=MAX_LABEL_LENGTH)]
LabelValue = Annotated[str, Meta(pattern=NO_NUL, max_length=MAX_LABEL_LENGTH)]
Labels = Annotated[dict[LabelKey, LabelValue], Meta(max_length=MAX_LABELS)]
Cpus = Annotated[int, Meta(ge=1, le=MAX_CPUS)]
MemoryMb = Annotated[int, Meta(ge=MIN_MEMORY_MIB, le=MAX_MEMORY_MIB, description="Guest memory in MiB.")]
TimeToLive = Annotated[int, Meta(ge=1, le=MAX_TTL_S, description="Seconds until it is destroyed.")]
IdleTime = Annotated[float, Meta(gt=0, le=MAX_TTL_S)]
Encoding = Literal["utf-8", "base64"]
Heat = Literal["hot", "warm", "cold"]
Stream = Literal["stdout", "stderr"]


class Nothing(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """No body, no query."""


class SandboxSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What may be said of a sandbox to come, in a request for one and in a template alike."""

    image: Name | None = None
    cpus: Cpus | None = None
    memory_mb: MemoryMb | None = None
    disk_size_mb: DiskMb | None = None
    env: Environment = {}
    labels: Labels = {}
    keep_hot: bool = False
    ttl_s: TimeToLive | None = None
    idle_pause_s: IdleTime | None = None
    idle_stop_s: IdleTime | None = None
    net_policy: NetPolicy | None = None
    volumes: Annotated[list[AttachVolume], Meta(max_length=MAX_VOLUMES)] = []
    new_volumes: Annotated[list[NewVolume], Meta(max_length=MAX_VOLUMES)] = []
    secrets: Annotated[list[SecretUse], Meta(max_length=MAX_SECRETS_USED)] = []
    files: NewFiles = []
    init: InitCommands = []
    init_timeout_s: InitTime | None = None


class CreateSandbox(SandboxSettings, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a user asks for; everything may be left out.

    Without more words a sandbox has the image ``debian``, one CPU, 256 MiB and a disk as large as its image. One that
    starts ``from`` a checkpoint or another sandbox has that one's image, CPUs and memory, so these may not be given
    with it; its disk may be larger. ``idle_pause_s`` and ``idle_stop_s`` are the seconds without use after which it
    sleeps; without them the daemon's settings count. The ``net_policy`` of one that starts ``from`` another may be
    narrower than that one's, not more open. ``files`` are written and ``init`` runs once, in a copy, too.

    With ``template_id``, the id or name of a template, what is left out here is as that says. ``env`` and ``labels``
    are joined, name by name; everything else that is given here replaces what the template says, null and empty lists
    too.
    """

    name: Name | None = None
    from_: Name | None = field(default=None, name="from")
    template_id: Name | None = None


class StepTiming(Struct, frozen=True, kw_only=True):
    """One named step of a sandbox's creation and how long it took, in milliseconds."""

    name: str
    duration_ms: float


class ExitCauseView(Struct, frozen=True, kw_only=True):
    """Why a machine ended; ``kind`` is one of a closed list, ``detail`` a sentence for people.

    ``process`` is the guest's process that had to go, where one is known. ``console`` are the last lines the machine
    wrote there; lists leave them out.
    """

    kind: str
    detail: str
    at: datetime
    process: str | None = None
    console: list[str] = []


class SandboxView(Struct, frozen=True, kw_only=True):
    """A sandbox as its owner sees it. Values of ``env`` are never given back.

    ``heat``: its CPUs run (hot), they stand still in memory (warm), or it lies on disk (cold). ``parent`` is the id of
    the sandbox or checkpoint it started from. ``exit_cause`` tells why its machine ended, until another runs.
    ``address`` is what its owner's others reach it by while it runs; its guest does not know it. A sandbox without a
    ``net_policy`` has no network. ``template_id`` is the id of the template it was made of, which may be gone.
    ``timings`` and ``volumes`` are told of one sandbox alone; lists leave them out.
    """

    id: str
    name: str
    state: str
    heat: Heat = "cold"
    image: str
    cpus: int
    memory_mb: int
    disk_size_mb: int | None = None
    labels: dict[str, str]
    created_at: datetime
    template_id: str | None = None
    error: str | None = None
    keep_hot: bool = False
    ttl_s: int | None = None
    expires_at: datetime | None = None
    idle_pause_s: float | None = None
    idle_stop_s: float | None = None
    stopped_at: datetime | None = None
    parent: str | None = None
    exit_cause: ExitCauseView | None = None
    address: str | None = None
    net_policy: NetPolicyView | None = None
    timings: list[StepTiming] = []
    volumes: list[MountedVolume] = []


class SandboxList(Struct, frozen=True, kw_only=True):
    """One page; ``next_cursor`` is absent on the last one."""

    items: list[SandboxView]
    next_cursor: str | None = None


class ListSandboxes(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Query of a list: every ``label`` (``key=value``) must match."""

    label: Annotated[list[Annotated[str, Meta(pattern=LABEL_QUERY)]], Meta(max_length=MAX_LABELS)] = []
    limit: Annotated[int, Meta(ge=1, le=MAX_LIST_LIMIT)] = DEFAULT_LIST_LIMIT
    cursor: Annotated[str, Meta(max_length=512)] | None = None


class ListPage(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Query of a list that takes nothing but its page."""

    limit: Annotated[int, Meta(ge=1, le=MAX_LIST_LIMIT)] = DEFAULT_LIST_LIMIT
    cursor: Annotated[str, Meta(max_length=512)] | None = None


class ExecCommand(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A command: argument list, never a shell line. The whole of ``stdin`` is fed, then its end.

    One with ``detach`` needs no client and is answered by what is known of it; ``output_file`` is where in the sandbox
    its output goes then instead of its log. Others are killed when their client leaves, but not before ``linger_sec``,
    in which it may come back to their output. ``keep_stdin`` leaves the input open for more. Without ``timeout_sec`` a
    command may take 300 s, a detached one as long as it likes.
    """

    cmd: Annotated[list[Text], Meta(min_length=1, max_length=MAX_ARGUMENTS)]
    env: Environment = {}
    cwd: Annotated[str, Meta(pattern=NO_NUL, min_length=1, max_length=4096)] | None = None
    user: Annotated[str, Meta(pattern=NO_NUL, min_length=1, max_length=256)] | None = None
    stdin: str | None = None
    stdin_encoding: Encoding = "utf-8"
    timeout_sec: Annotated[float, Meta(ge=MIN_TIMEOUT_S, le=MAX_EXEC_TIMEOUT_S)] | None = None
    secrets: Annotated[list[SecretVariable], Meta(max_length=MAX_SECRETS_USED)] = []
    detach: bool = False
    linger_sec: Annotated[float, Meta(ge=0, le=MAX_LINGER_S)] = 0
    keep_stdin: bool = False
    output_file: Annotated[str, Meta(pattern=NO_NUL, min_length=1, max_length=4096)] | None = None


class ExecResult(Struct, frozen=True, kw_only=True):
    """What a finished command wrote. ``encoding`` holds for both outputs; ``truncated`` says that some was dropped."""

    exit_code: int
    stdout: str
    stderr: str
    truncated: bool = False
    encoding: Encoding = "utf-8"
    exec_id: str = ""


class _Chunk(Struct, frozen=True, kw_only=True, omit_defaults=True):
    data: str
    encoding: Encoding = "utf-8"
    cursor: int | None = None


class StdoutEvent(_Chunk, frozen=True, kw_only=True, omit_defaults=True, tag_field="type", tag="stdout"):
    """Some of the command's output; without ``encoding`` it is text."""


class StderrEvent(_Chunk, frozen=True, kw_only=True, omit_defaults=True, tag_field="type", tag="stderr"):
    """Some of the command's error output; without ``encoding`` it is text."""


class ExitEvent(Struct, frozen=True, kw_only=True, tag_field="type", tag="exit"):
    """The command ended: 0-255, or 128+n when signal n ended it. Always the last line."""

    exit_code: int


class ErrorEvent(Struct, frozen=True, kw_only=True, tag_field="type", tag="error"):
    """The command did not come to its end; the fields are those of a problem. Always the last line."""

    error: str
    code: str
    details: str = ""
    resolution: str = ""
    request_id: str = ""


class GapEvent(Struct, frozen=True, kw_only=True, tag_field="type", tag="gap"):
    """Output that is no longer there, from one cursor to another: a full log has lost its oldest."""

    start: int
    cursor: int


class RunningEvent(Struct, frozen=True, kw_only=True, tag_field="type", tag="running"):
    """This is all so far and the command runs on; where ``follow`` was not asked for, the last line."""

    cursor: int


Event = StdoutEvent | StderrEvent | GapEvent | RunningEvent | ExitEvent | ErrorEvent


class Health(Struct, frozen=True, kw_only=True):
    """The daemon is there; ``uptime`` is for people (``1h 2m 3s``)."""

    status: Literal["healthy"]
    sandboxes: int
    uptime: str
    version: str


class Liveness(Struct, frozen=True, kw_only=True):
    status: Literal["ok"]


class Readiness(Struct, frozen=True, kw_only=True):
    """``checks`` holds ``ok`` or a sentence for each thing the daemon needs to do its work."""

    status: Literal["ready", "not ready"]
    checks: dict[str, str]


class Problem(Struct, frozen=True, kw_only=True):
    """The one shape of every error answer."""

    error: str
    code: str
    details: str = ""
    resolution: str = ""
    request_id: str = ""
