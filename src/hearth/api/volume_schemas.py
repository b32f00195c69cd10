"""Bodies of volumes. The conventions are those of ``schemas``."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from msgspec import Meta, Struct

from hearth.api.patterns import MOUNT_PATH, VOLUME_NAME
from hearth.bounds import MAX_MOUNT_PATH_BYTES, MAX_VOLUME_MIB, MIN_VOLUME_MIB

VolumeName = Annotated[
    str,
    Meta(
        pattern=VOLUME_NAME,
        min_length=1,
        max_length=100,
        description="1 to 100 of a-z, A-Z, 0-9 and '+_.-', not beginning with '-'.",
    ),
]
VolumeMb = Annotated[int, Meta(ge=MIN_VOLUME_MIB, le=MAX_VOLUME_MIB, description="Size in MiB.")]
MountPath = Annotated[
    str,
    Meta(
        pattern=MOUNT_PATH,
        max_length=MAX_MOUNT_PATH_BYTES,
        description="An absolute path in the sandbox, of its own.",
    ),
]


class CreateVolume(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An empty volume with an ext4 file system."""

    name: VolumeName
    size_mb: VolumeMb


class LinkVolume(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A provisioned volume that is to be a volume: ``provisioned`` is its name in ``pool``, the usual one if absent.

    ``partition`` is the number of the one that is mounted, 0 for a disk without a partition table; without it, that is
    found out. ``owner`` is the user, by id or name, whose the volume will be, by default the caller.
    """

    name: VolumeName
    provisioned: VolumeName
    pool: Annotated[str, Meta(min_length=1, max_length=128)] | None = None
    partition: Annotated[int, Meta(ge=0, le=1024)] | None = None
    owner: Annotated[str, Meta(min_length=1, max_length=128)] | None = None


class ResizeVolume(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The size it is to have; it grows, never shrinks."""

    size_mb: VolumeMb


class CloneVolume(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The name of the copy."""

    name: VolumeName


class AttachVolume(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A volume, by name or id, and where it is mounted: alone and writable, or read-only together with others."""

    name: VolumeName
    mount: MountPath
    read_only: bool = False


class NewVolume(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A volume to be made for a new sandbox and where it is mounted; it stays when the sandbox goes."""

    name: VolumeName
    size_mb: VolumeMb
    mount: MountPath


class MountedVolume(Struct, frozen=True, kw_only=True):
    """A volume of a sandbox."""

    id: str
    name: str
    mount: str
    read_only: bool
    attached_at: datetime


class VolumeUser(Struct, frozen=True, kw_only=True):
    """A sandbox that has a volume, running or not."""

    sandbox_id: str
    sandbox_name: str
    mount: str
    read_only: bool
    attached_at: datetime


class VolumeView(Struct, frozen=True, kw_only=True):
    """A volume. ``allocated_bytes`` is what it takes up on the host, where that can be told.

    ``provisioned`` and ``pool`` say which provisioned volume it is, if it is one.
    """

    id: str
    name: str
    state: str
    size_mb: int
    fs: str
    allocated_bytes: int | None = None
    attached: list[VolumeUser] = []
    created_at: datetime
    provisioned: str | None = None
    pool: str | None = None


class VolumeList(Struct, frozen=True, kw_only=True):
    """One page; ``next_cursor`` is absent on the last one."""

    items: list[VolumeView]
    next_cursor: str | None = None
