"""Volumes: disks with a name that outlive the sandboxes they are mounted in."""

from __future__ import annotations

from typing import Any

from hearth.api.limits import PREFIX
from hearth.api.operation import Operation
from hearth.api.schemas import ListPage, Nothing
from hearth.api.volume_schemas import (
    AttachVolume,
    CloneVolume,
    CreateVolume,
    LinkVolume,
    MountedVolume,
    ResizeVolume,
    VolumeList,
    VolumeView,
)
from hearth.errors import Code

VOLUMES = f"{PREFIX}/volumes"
VOLUME = f"{VOLUMES}/{{ref}}"
IN_SANDBOX = f"{PREFIX}/sandboxes/{{ref}}/volumes"

CREATE_VOLUME = Operation(
    name="create_volume",
    method="POST",
    path=VOLUMES,
    summary="Make an empty volume with a file system.",
    takes=CreateVolume,
    gives=VolumeView,
    statuses=(201,),
    errors=(Code.CONFLICT, Code.QUOTA_EXCEEDED, Code.NO_SPACE),
)
LINK_VOLUME = Operation(
    name="link_volume",
    method="POST",
    path=f"{VOLUMES}/link",
    summary="Make a volume of a provisioned one, for sandboxes of its owner. Administrators only.",
    takes=LinkVolume,
    gives=VolumeView,
    statuses=(201,),
    errors=(Code.NOT_FOUND, Code.CONFLICT, Code.QUOTA_EXCEEDED, Code.TIMEOUT),
)
LIST_VOLUMES = Operation(
    name="list_volumes",
    method="GET",
    path=VOLUMES,
    summary="List the caller's volumes and who has them, oldest first, a page at a time.",
    takes=ListPage,
    gives=VolumeList,
)
GET_VOLUME = Operation(
    name="get_volume",
    method="GET",
    path=VOLUME,
    summary="Show one volume, by id or name, and who has it.",
    takes=Nothing,
    gives=VolumeView,
    errors=(Code.NOT_FOUND, Code.CONFLICT),
)
DELETE_VOLUME = Operation(
    name="delete_volume",
    method="DELETE",
    path=VOLUME,
    summary="Delete a volume that no sandbox has, for good.",
    takes=Nothing,
    gives=Nothing,
    statuses=(204,),
    errors=(Code.NOT_FOUND, Code.CONFLICT),
)
RESIZE_VOLUME = Operation(
    name="resize_volume",
    method="POST",
    path=f"{VOLUME}/resize",
    summary="Grow a volume that no sandbox has, and its file system.",
    takes=ResizeVolume,
    gives=VolumeView,
    errors=(Code.NOT_FOUND, Code.CONFLICT, Code.QUOTA_EXCEEDED, Code.NO_SPACE),
)
CLONE_VOLUME = Operation(
    name="clone_volume",
    method="POST",
    path=f"{VOLUME}/clone",
    summary="Copy a volume that no sandbox writes to.",
    takes=CloneVolume,
    gives=VolumeView,
    statuses=(201,),
    errors=(Code.NOT_FOUND, Code.CONFLICT, Code.QUOTA_EXCEEDED, Code.NO_SPACE),
)
ATTACH_VOLUME = Operation(
    name="attach_volume",
    method="POST",
    path=IN_SANDBOX,
    summary="Mount a volume in a sandbox, which is woken; where it is so already that is fine.",
    takes=AttachVolume,
    gives=MountedVolume,
    statuses=(201,),
    errors=(
        Code.NOT_FOUND,
        Code.CONFLICT,
        Code.NO_SPACE,
        Code.ENGINE_FAILED,
        Code.GUEST_FAILED,
        Code.TIMEOUT,
    ),
)
DETACH_VOLUME = Operation(
    name="detach_volume",
    method="DELETE",
    path=f"{IN_SANDBOX}/{{volume}}",
    summary="Unmount a volume and take it out of a sandbox, which is woken; 409 while something there uses it.",
    takes=Nothing,
    gives=Nothing,
    statuses=(204,),
    errors=(
        Code.NOT_FOUND,
        Code.CONFLICT,
        Code.NO_SPACE,
        Code.ENGINE_FAILED,
        Code.GUEST_FAILED,
        Code.TIMEOUT,
    ),
)

OPERATIONS: tuple[Operation[Any, Any], ...] = (
    CREATE_VOLUME,
    LINK_VOLUME,
    LIST_VOLUMES,
    GET_VOLUME,
    DELETE_VOLUME,
    RESIZE_VOLUME,
    CLONE_VOLUME,
    ATTACH_VOLUME,
    DETACH_VOLUME,
)
