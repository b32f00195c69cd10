"""The operations on sandboxes that make, find and destroy them."""

from __future__ import annotations

from hearth.api.limits import PREFIX
from hearth.api.operation import Operation
from hearth.api.schemas import CreateSandbox, ListSandboxes, Nothing, SandboxList, SandboxView
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
        Code.INIT_FAILED,
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

OPERATIONS = (CREATE_SANDBOX, LIST_SANDBOXES, GET_SANDBOX, DESTROY_SANDBOX)
