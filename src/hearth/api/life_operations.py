"""What changes a sandbox between its creation and its end: sleep, wake, copy, edit."""

from __future__ import annotations

from typing import Any

from hearth.api.image_schemas import ImageView
from hearth.api.limits import PREFIX
from hearth.api.net_schemas import EgressView
from hearth.api.operation import Operation
from hearth.api.schemas import Nothing, SandboxList, SandboxView
from hearth.api.sleep_schemas import (
    ChangeSandbox,
    CopySandbox,
    NamedCopy,
    SnapshotView,
    StartSandbox,
)
from hearth.errors import Code
from hearth.tenancy import KeyScope

SANDBOX = f"{PREFIX}/sandboxes/{{ref}}"
WAKING = (
    Code.NOT_FOUND,
    Code.CONFLICT,
    Code.ENGINE_FAILED,
    Code.GUEST_FAILED,
    Code.HOST_UNFIT,
    Code.TIMEOUT,
    Code.NO_SPACE,
)
"""What may keep a sandbox from being woken or brought to disk."""

UPDATE_SANDBOX = Operation(
    name="update_sandbox",
    method="PATCH",
    path=SANDBOX,
    summary="Change name, labels, time to live, network or whether it may sleep; wakes nothing.",
    takes=ChangeSandbox,
    gives=SandboxView,
    errors=(Code.NOT_FOUND, Code.CONFLICT, Code.QUOTA_EXCEEDED, Code.HOST_UNFIT),
)
GET_EGRESS = Operation(
    name="get_egress",
    method="GET",
    path=f"{SANDBOX}/egress",
    summary="Tell what a sandbox tried to reach, what refused it, and the shortest policy for what an audit saw.",
    takes=Nothing,
    gives=EgressView,
    errors=(Code.NOT_FOUND,),
)
STOP_SANDBOX = Operation(
    name="stop_sandbox",
    method="POST",
    scope=KeyScope.EXEC,
    path=f"{SANDBOX}/stop",
    summary="Bring a sandbox to disk, its memory with it, and end its process; any use wakes it again.",
    takes=Nothing,
    gives=SandboxView,
    errors=WAKING,
)
START_SANDBOX = Operation(
    name="start_sandbox",
    method="POST",
    scope=KeyScope.EXEC,
    path=f"{SANDBOX}/start",
    summary="Wake a sandbox ahead of its use; force boots from disk what cannot be woken with its memory.",
    takes=StartSandbox,
    gives=SandboxView,
    errors=WAKING,
    body_optional=True,
)
PAUSE_SANDBOX = Operation(
    name="pause_sandbox",
    method="POST",
    scope=KeyScope.EXEC,
    path=f"{SANDBOX}/pause",
    summary="Stop a sandbox's CPUs; its memory stays where it is. Any use makes them run again.",
    takes=Nothing,
    gives=SandboxView,
    errors=WAKING,
)
RESUME_SANDBOX = Operation(
    name="resume_sandbox",
    method="POST",
    scope=KeyScope.EXEC,
    path=f"{SANDBOX}/resume",
    summary="Let a paused sandbox's CPUs run again.",
    takes=Nothing,
    gives=SandboxView,
    errors=WAKING,
)
FORK_SANDBOX = Operation(
    name="fork_sandbox",
    method="POST",
    path=f"{SANDBOX}/fork",
    summary="Make copies of a living sandbox, memory and disk as they are at one moment, each with its own identity.",
    takes=CopySandbox,
    gives=SandboxList,
    statuses=(201,),
    errors=(*WAKING, Code.QUOTA_EXCEEDED, Code.CANCELLED),
    body_optional=True,
)
CHECKPOINT_SANDBOX = Operation(
    name="checkpoint_sandbox",
    method="POST",
    path=f"{SANDBOX}/checkpoint",
    summary="Keep memory and disk of a living sandbox under a name, for any number of others to start from.",
    takes=NamedCopy,
    gives=SnapshotView,
    statuses=(201,),
    errors=(*WAKING, Code.QUOTA_EXCEEDED),
)
SAVE_IMAGE = Operation(
    name="save_image",
    method="POST",
    path=f"{SANDBOX}/save-image",
    summary="Make an image of a sandbox's disk, to create others of.",
    takes=NamedCopy,
    gives=ImageView,
    statuses=(201,),
    errors=(*WAKING, Code.QUOTA_EXCEEDED),
)

OPERATIONS: tuple[Operation[Any, Any], ...] = (
    UPDATE_SANDBOX,
    GET_EGRESS,
    STOP_SANDBOX,
    START_SANDBOX,
    PAUSE_SANDBOX,
    RESUME_SANDBOX,
    FORK_SANDBOX,
    CHECKPOINT_SANDBOX,
    SAVE_IMAGE,
)
