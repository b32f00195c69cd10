"""Images: what sandboxes are made of, and the ways they come here."""

from __future__ import annotations

from typing import Any

from hearth.api.event_schemas import JobView
from hearth.api.image_schemas import (
    GoldenImage,
    ImageList,
    ImageView,
    ImportImage,
    ListImages,
    PrefetchImage,
    PullImage,
    SaveImage,
)
from hearth.api.life_operations import WAKING
from hearth.api.limits import BYTES, PREFIX, TAR
from hearth.api.operation import Operation
from hearth.api.provision_schemas import PinCached
from hearth.api.schemas import Nothing
from hearth.errors import Code

IMAGES = f"{PREFIX}/images"
IMAGE = f"{IMAGES}/{{ref}}"

LIST_IMAGES = Operation(
    name="list_images",
    method="GET",
    path=IMAGES,
    summary="List the images sandboxes can be made of: the host's and the caller's own, newest first.",
    takes=ListImages,
    gives=ImageList,
)
GET_IMAGE = Operation(
    name="get_image",
    method="GET",
    path=IMAGE,
    summary="Show one image, by id or name; the caller's own names come first.",
    takes=Nothing,
    gives=ImageView,
    errors=(Code.NOT_FOUND, Code.CONFLICT),
)
DELETE_IMAGE = Operation(
    name="delete_image",
    method="DELETE",
    path=IMAGE,
    summary="Delete an image: its name goes at once, its bytes when nothing lies over them; 409 for the host's in use.",
    takes=Nothing,
    gives=Nothing,
    statuses=(204,),
    errors=(Code.NOT_FOUND, Code.CONFLICT),
)
PIN_IMAGE = Operation(
    name="pin_image",
    method="PATCH",
    path=IMAGE,
    summary="Keep a golden image for good, or no more, by id or SHA-256. Administrators only.",
    takes=PinCached,
    gives=ImageView,
    errors=(Code.NOT_FOUND,),
)
PREFETCH_IMAGE = Operation(
    name="prefetch_image",
    method="POST",
    path=f"{IMAGES}/prefetch",
    summary="Begin to have a golden image here before anybody needs it. Administrators only.",
    takes=PrefetchImage,
    gives=JobView,
    statuses=(202,),
    errors=(Code.NOT_FOUND,),
)
PULL_IMAGE = Operation(
    name="pull_image",
    method="POST",
    path=f"{IMAGES}/pull",
    summary="Begin to pull an image from a registry; the job tells how far it is, and may be cancelled.",
    takes=PullImage,
    gives=JobView,
    statuses=(202,),
    errors=(Code.NOT_FOUND, Code.CONFLICT, Code.QUOTA_EXCEEDED),
)
IMPORT_IMAGE = Operation(
    name="import_image",
    method="POST",
    path=f"{IMAGES}/import",
    summary="Begin to make an image of the body: an archive of docker save, an OCI layout, or a file system's tar.",
    takes=ImportImage,
    gives=JobView,
    statuses=(202,),
    errors=(Code.CONFLICT, Code.QUOTA_EXCEEDED, Code.NO_SPACE, Code.TOO_LARGE, Code.REQUEST_TIMEOUT),
    uploads=(TAR, BYTES),
)
GOLDEN_IMAGE = Operation(
    name="golden_image",
    method="POST",
    path=f"{IMAGES}/golden",
    summary="Begin to make an image of a golden image's root file system. Administrators only.",
    takes=GoldenImage,
    gives=JobView,
    statuses=(202,),
    errors=(Code.NOT_FOUND, Code.CONFLICT, Code.QUOTA_EXCEEDED),
)
SAVE_IMAGE_OF = Operation(
    name="save_image_of",
    method="POST",
    path=f"{IMAGES}/save",
    summary="Make an image of a sandbox's disk, as save-image of the sandbox does.",
    takes=SaveImage,
    gives=ImageView,
    statuses=(201,),
    errors=(*WAKING, Code.QUOTA_EXCEEDED),
)

OPERATIONS: tuple[Operation[Any, Any], ...] = (
    LIST_IMAGES,
    GET_IMAGE,
    DELETE_IMAGE,
    PULL_IMAGE,
    IMPORT_IMAGE,
    GOLDEN_IMAGE,
    PIN_IMAGE,
    PREFETCH_IMAGE,
    SAVE_IMAGE_OF,
)
