"""The table of operations: every call of the API, once, for the server's routes, the SDK and OpenAPI alike."""

from __future__ import annotations

from typing import Any

from hearth.api import (
    event_operations,
    exec_operations,
    life_operations,
    secret_operations,
    snapshot_operations,
    user_operations,
    volume_operations,
)
from hearth.api.limits import PREFIX
from hearth.api.operation import Operation
from hearth.api.port_operations import OPERATIONS as PORT_OPERATIONS
from hearth.api.schemas import (
    CreateSandbox,
    Health,
    ImageList,
    ListSandboxes,
    Liveness,
    Nothing,
    Readiness,
    SandboxList,
    SandboxView,
)
from hearth.api.stats_operations import OPERATIONS as STATS_OPERATIONS
from hearth.errors import Code

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
    summary="Show one sandbox, by id or name, with the timings of its creation and why its machine ended, if it did.",
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
    *life_operations.OPERATIONS,
    *exec_operations.OPERATIONS,
    *PORT_OPERATIONS,
    *snapshot_operations.OPERATIONS,
    *volume_operations.OPERATIONS,
    LIST_IMAGES,
    *STATS_OPERATIONS,
    *user_operations.OPERATIONS,
    *event_operations.OPERATIONS,
    *secret_operations.OPERATIONS,
    HEALTH,
    HEALTHZ,
    LIVEZ,
    READYZ,
)
