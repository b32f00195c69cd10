"""What outlives sandboxes or comes before them: checkpoints, the memory of ends, machines kept ready."""

from __future__ import annotations

from typing import Any

from hearth.api.limits import PREFIX
from hearth.api.operation import Operation
from hearth.api.schemas import ListPage, Nothing, SandboxList
from hearth.api.sleep_schemas import (
    CopySandbox,
    EndingList,
    EndingView,
    MachineTemplateList,
    MachineTemplateView,
    SnapshotList,
    SnapshotView,
    WarmTemplate,
)
from hearth.errors import Code

SNAPSHOT = f"{PREFIX}/snapshots/{{ref}}"
MACHINE_TEMPLATES = f"{PREFIX}/machine-templates"

LIST_SNAPSHOTS = Operation(
    name="list_snapshots",
    method="GET",
    path=f"{PREFIX}/snapshots",
    summary="List the caller's checkpoints, oldest first, a page at a time; each tells its parent.",
    takes=ListPage,
    gives=SnapshotList,
)
GET_SNAPSHOT = Operation(
    name="get_snapshot",
    method="GET",
    path=SNAPSHOT,
    summary="Show one checkpoint, by id or name.",
    takes=Nothing,
    gives=SnapshotView,
    errors=(Code.NOT_FOUND, Code.CONFLICT),
)
DELETE_SNAPSHOT = Operation(
    name="delete_snapshot",
    method="DELETE",
    path=SNAPSHOT,
    summary="Delete a checkpoint; what other checkpoints and sandboxes need of it stays until they are gone.",
    takes=Nothing,
    gives=Nothing,
    statuses=(204,),
    errors=(Code.NOT_FOUND, Code.CONFLICT),
)
RESUME_SNAPSHOT = Operation(
    name="resume_snapshot",
    method="POST",
    path=f"{SNAPSHOT}/resume",
    summary="Make sandboxes that go on where the checkpoint was taken, each with its own identity.",
    takes=CopySandbox,
    gives=SandboxList,
    statuses=(201,),
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
    body_optional=True,
)
LIST_ENDINGS = Operation(
    name="list_endings",
    method="GET",
    path=f"{PREFIX}/endings",
    summary="List the caller's destroyed sandboxes and why each ended, the first to end first, a page at a time.",
    takes=ListPage,
    gives=EndingList,
)
GET_ENDING = Operation(
    name="get_ending",
    method="GET",
    path=f"{PREFIX}/endings/{{ref}}",
    summary="Tell why a destroyed sandbox ended, by its id, or of those that bore a name the last.",
    takes=Nothing,
    gives=EndingView,
    errors=(Code.NOT_FOUND,),
)
LIST_MACHINE_TEMPLATES = Operation(
    name="list_machine_templates",
    method="GET",
    path=MACHINE_TEMPLATES,
    summary="List the shapes of machines that are kept ready to be cloned.",
    takes=Nothing,
    gives=MachineTemplateList,
)
WARM_MACHINE_TEMPLATE = Operation(
    name="warm_machine_template",
    method="POST",
    path=MACHINE_TEMPLATES,
    summary="Boot a machine of a shape and keep it ready, so that not even the first creation has to; about one boot.",
    takes=WarmTemplate,
    gives=MachineTemplateView,
    statuses=(201,),
    errors=(
        Code.NOT_FOUND,
        Code.CONFLICT,
        Code.NO_SPACE,
        Code.ENGINE_FAILED,
        Code.GUEST_FAILED,
        Code.HOST_UNFIT,
        Code.TIMEOUT,
    ),
)
DELETE_MACHINE_TEMPLATE = Operation(
    name="delete_machine_template",
    method="DELETE",
    path=f"{MACHINE_TEMPLATES}/{{ref}}",
    summary="Drop a machine kept ready; the next creation of its shape boots. For administrators.",
    takes=Nothing,
    gives=Nothing,
    statuses=(204,),
    errors=(Code.NOT_FOUND, Code.FORBIDDEN, Code.CONFLICT),
)

OPERATIONS: tuple[Operation[Any, Any], ...] = (
    LIST_SNAPSHOTS,
    GET_SNAPSHOT,
    DELETE_SNAPSHOT,
    RESUME_SNAPSHOT,
    LIST_ENDINGS,
    GET_ENDING,
    LIST_MACHINE_TEMPLATES,
    WARM_MACHINE_TEMPLATE,
    DELETE_MACHINE_TEMPLATE,
)
