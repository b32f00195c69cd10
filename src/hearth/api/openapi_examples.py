"""Examples in the OpenAPI document: values of the contract's own types, so that none can be of another form."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec

from hearth.api.event_schemas import CancelledJob, JobList, JobProgress, JobView
from hearth.api.net_schemas import NetPolicy
from hearth.api.port_schemas import PublishPort
from hearth.api.schemas import (
    CreateSandbox,
    ExecCommand,
    ExecResult,
    Health,
    Liveness,
    Problem,
    Readiness,
    SandboxList,
    SandboxView,
    StepTiming,
)
from hearth.api.sleep_schemas import ChangeSandbox, CopySandbox, NamedCopy, SnapshotList, SnapshotView, StartSandbox
from hearth.api.user_schemas import CreateKey, CreateUser, RotateKey
from hearth.api.volume_schemas import AttachVolume, CloneVolume, CreateVolume, NewVolume, ResizeVolume

_AT = datetime(2026, 3, 14, 9, 26, 53, tzinfo=UTC)
_SANDBOX = SandboxView(
    id="sb-4k2m9x7q1z8w",
    name="dev",
    state="running",
    heat="hot",
    image="debian",
    cpus=2,
    memory_mb=512,
    labels={"team": "search"},
    created_at=_AT,
    address="10.64.0.2",
    timings=[StepTiming(name="disk", duration_ms=3.1), StepTiming(name="agent", duration_ms=41.7)],
)
_JOB = JobView(
    job_id="job-6h3n8c5v2b1d",
    kind="sandbox.create",
    subject=_SANDBOX.id,
    status="running",
    progress=JobProgress(stage="agent", percent=60.0),
    attempts=1,
    created_at=_AT,
    started_at=_AT,
)
_SNAPSHOT = SnapshotView(
    id="snap-9f4t2p7r5k3j",
    name="before-the-upgrade",
    state="ready",
    sandbox_id=_SANDBOX.id,
    sandbox_name=_SANDBOX.name,
    image="debian",
    cpus=2,
    memory_mb=512,
    size_bytes=14_680_064,
    created_at=_AT,
)
EXAMPLES: dict[type[Any], msgspec.Struct] = {
    type(each): each
    for each in (
        CreateSandbox(
            name="dev",
            cpus=2,
            memory_mb=512,
            env={"STAGE": "test"},
            labels={"team": "search"},
            net_policy=NetPolicy(allow_hosts=["packages.example.org"]),
            new_volumes=[NewVolume(name="cache", size_mb=1024, mount="/cache")],
        ),
        _SANDBOX,
        SandboxList(items=[_SANDBOX]),
        ChangeSandbox(labels_add={"stage": "done"}, labels_remove=["team"], keep_hot=True),
        StartSandbox(force=True),
        CopySandbox(name="dev-copy", count=2),
        NamedCopy(name="before-the-upgrade"),
        _SNAPSHOT,
        SnapshotList(items=[_SNAPSHOT]),
        ExecCommand(cmd=["sh", "-c", "echo hello"], env={"LANG": "C"}, timeout_sec=10),
        ExecResult(exit_code=0, stdout="hello\n", stderr=""),
        CreateVolume(name="cache", size_mb=1024),
        ResizeVolume(size_mb=2048),
        CloneVolume(name="cache-copy"),
        AttachVolume(name="cache", mount="/cache", read_only=True),
        PublishPort(port=8080, alias="dev"),
        CreateUser(name="ada"),
        CreateKey(name="ci", scope="exec", ttl_s=86_400),
        RotateKey(overlap_s=3600),
        _JOB,
        JobList(items=[_JOB]),
        CancelledJob(job_id=_JOB.job_id),
        Health(status="healthy", sandboxes=3, uptime="2d 3h 0m 5s", version="0.1.0"),
        Liveness(status="ok"),
        Readiness(status="ready", checks={"store": "ok", "engine": "ok", "images": "ok", "disk": "ok"}),
    )
}
_PROBLEMS = {
    400: ("invalid cpus", "cpus is 0", "use 1 or more"),
    401: ("a token is needed", "the request has no 'Authorization: Bearer …' header", "set HEARTH_TOKEN"),
    404: ("no such sandbox", "there is no sandbox 'dev'", "see 'hearth list'"),
    409: ("the sandbox is stopped", "dev is stopped", "start it first"),
    429: ("too many requests", "more than 30 a minute", "try again in a moment"),
    503: ("the daemon is stopping", "it takes no more requests", "try again in a moment"),
}


def examples_of(schema: type[Any], *, status: int = 200, code: str = "") -> dict[str, Any]:
    """Give the ``example`` member for a schema; nothing where there is none.

    Args:
        status: of a problem.
        code: of that.
    """
    value: msgspec.Struct | None = EXAMPLES.get(schema)
    if schema is Problem and status in _PROBLEMS:
        error, details, resolution = _PROBLEMS[status]
        value = Problem(
            error=error, code=code, details=details, resolution=resolution, request_id="req-5f2d9c81a04b7e36"
        )
    return {} if value is None else {"example": msgspec.to_builtins(value)}
