"""The operations of volumes, as values; the rest is in ``calls``."""

from __future__ import annotations

from typing import NotRequired, TypedDict

from hearth.api.limits import MAX_LIST_LIMIT
from hearth.api.schemas import ListPage, Nothing
from hearth.api.volume_operations import (
    ATTACH_VOLUME,
    CLONE_VOLUME,
    CREATE_VOLUME,
    DELETE_VOLUME,
    DETACH_VOLUME,
    GET_VOLUME,
    LINK_VOLUME,
    LIST_VOLUMES,
    RESIZE_VOLUME,
)
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
from hearth.sdk.call import LONG_S, Call, call_of, checked

VOLUME = "volume"


class VolumeOptions(TypedDict):
    """A volume for a new sandbox: its name, and the absolute path at which it is mounted there."""

    name: str
    mount: str
    read_only: NotRequired[bool]


class NewVolumeOptions(TypedDict):
    """A volume to be made for a new sandbox, in MiB, and where it is mounted."""

    name: str
    size_mb: int
    mount: str


class LinkOptions(TypedDict, total=False):
    """What may be said of a provisioned volume that is to be a volume: see ``hearth.api.volume_schemas.LinkVolume``."""

    pool: str
    partition: int
    owner: str


def link(name: str, provisioned: str, options: LinkOptions) -> Call[VolumeView]:
    wanted = checked(LinkVolume, {"name": name, "provisioned": provisioned, **options})
    return call_of(LINK_VOLUME, wanted, timeout_s=LONG_S)


def create(name: str, size_mb: int) -> Call[VolumeView]:
    return call_of(CREATE_VOLUME, checked(CreateVolume, {"name": name, "size_mb": size_mb}), timeout_s=LONG_S)


def page(cursor: str | None) -> Call[VolumeList]:
    return call_of(LIST_VOLUMES, ListPage(limit=MAX_LIST_LIMIT, cursor=cursor))


def get(ref: str) -> Call[VolumeView]:
    return call_of(GET_VOLUME, Nothing(), ref=ref, what=VOLUME)


def delete(ref: str) -> Call[Nothing]:
    return call_of(DELETE_VOLUME, Nothing(), ref=ref, what=VOLUME, timeout_s=LONG_S)


def resize(ref: str, size_mb: int) -> Call[VolumeView]:
    return call_of(RESIZE_VOLUME, checked(ResizeVolume, {"size_mb": size_mb}), ref=ref, what=VOLUME, timeout_s=LONG_S)


def clone(ref: str, name: str) -> Call[VolumeView]:
    return call_of(CLONE_VOLUME, checked(CloneVolume, {"name": name}), ref=ref, what=VOLUME, timeout_s=LONG_S)


def attach(sandbox: str, name: str, mount: str, *, read_only: bool) -> Call[MountedVolume]:
    wanted = checked(AttachVolume, {"name": name, "mount": mount, "read_only": read_only})
    return call_of(ATTACH_VOLUME, wanted, ref=sandbox, timeout_s=LONG_S)


def detach(sandbox: str, volume: str) -> Call[Nothing]:
    return call_of(DETACH_VOLUME, Nothing(), ref=sandbox, volume=volume, timeout_s=LONG_S)
