"""Operations of provisioning."""

from __future__ import annotations

from hearth.api.limits import PREFIX
from hearth.api.operation import Operation
from hearth.api.provision_schemas import (
    CachedImage,
    CachedImageList,
    GrowProvisioned,
    ListProvisioned,
    PinCached,
    Provision,
    ProvisionedList,
    ProvisionedVolume,
    ProvisionForecast,
    ProvisionStarted,
)
from hearth.api.schemas import Nothing
from hearth.errors import Code

PROVISION_PATH = f"{PREFIX}/provision"
VOLUME = f"{PROVISION_PATH}/volumes/{{ref}}"
CACHED = f"{PROVISION_PATH}/images/{{ref}}"

PROVISION = Operation(
    name="provision",
    method="POST",
    path=PROVISION_PATH,
    summary="Fill a volume from a golden image; with dry_run 200 and what that would come to. Administrators only.",
    takes=Provision,
    gives=ProvisionStarted,
    statuses=(202, 200),
    also_gives={200: ProvisionForecast},
    errors=(Code.NOT_FOUND, Code.CONFLICT, Code.NO_SPACE, Code.TIMEOUT),
)
LIST_PROVISIONED = Operation(
    name="list_provisioned",
    method="GET",
    path=f"{PROVISION_PATH}/volumes",
    summary="List the volumes that were filled, by pool and name. Administrators only.",
    takes=Nothing,
    gives=ProvisionedList,
    errors=(Code.TIMEOUT,),
)
GET_PROVISIONED = Operation(
    name="get_provisioned",
    method="GET",
    path=VOLUME,
    summary="Show a volume that was filled. Administrators only.",
    takes=ListProvisioned,
    gives=ProvisionedVolume,
    errors=(Code.NOT_FOUND, Code.TIMEOUT),
)
GROW_PROVISIONED = Operation(
    name="grow_provisioned",
    method="POST",
    path=f"{VOLUME}/grow",
    summary="Make a volume that was filled larger; 409 while somebody uses it. Administrators only.",
    takes=GrowProvisioned,
    gives=ProvisionedVolume,
    errors=(Code.NOT_FOUND, Code.CONFLICT, Code.NO_SPACE, Code.TIMEOUT),
)
DELETE_PROVISIONED = Operation(
    name="delete_provisioned",
    method="DELETE",
    path=VOLUME,
    summary="Delete a volume that was filled; 409 while somebody uses it. Administrators only.",
    takes=ListProvisioned,
    gives=Nothing,
    statuses=(204,),
    errors=(Code.NOT_FOUND, Code.CONFLICT, Code.TIMEOUT),
)
LIST_CACHED = Operation(
    name="list_cached_images",
    method="GET",
    path=f"{PROVISION_PATH}/images",
    summary="List the golden images that are kept, the last used first. Administrators only.",
    takes=Nothing,
    gives=CachedImageList,
)
PIN_CACHED = Operation(
    name="pin_cached_image",
    method="PATCH",
    path=CACHED,
    summary="Keep a golden image for good, or no more. Administrators only.",
    takes=PinCached,
    gives=CachedImage,
    errors=(Code.NOT_FOUND,),
)
DELETE_CACHED = Operation(
    name="delete_cached_image",
    method="DELETE",
    path=CACHED,
    summary="Remove a golden image; 409 while it is in use. Administrators only.",
    takes=Nothing,
    gives=Nothing,
    statuses=(204,),
    errors=(Code.NOT_FOUND, Code.CONFLICT),
)
OPERATIONS = (
    PROVISION,
    LIST_PROVISIONED,
    GET_PROVISIONED,
    GROW_PROVISIONED,
    DELETE_PROVISIONED,
    LIST_CACHED,
    PIN_CACHED,
    DELETE_CACHED,
)
