"""LVM's command lines, from values; and the names and tags that it takes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from hearth.errors import InvalidInput
from hearth.volume.golden.base import NAME_FIELD, SIZE_FIELD
from hearth.volume.golden.lvm_reports import GROUP_FIELDS, VOLUME_FIELDS
from hearth.volume.names import PATTERN, check_volume_name

SECTOR_BYTES = 512
FULL_NAME_MAX_CHARACTERS = 120
"""Of what device-mapper calls the volume: group, hyphen, volume, with each of their hyphens doubled. It takes 127
(linux/dm-ioctl.h), and LVM adds a suffix to some. Without a kernel LVM itself does not notice.
"""
TAG = re.compile(r"[A-Za-z0-9_+.\-/=!:&#]{1,1024}")
"""lvm(8), "Tags"; none begins with a hyphen."""


def create_words(
    group: str, name: str, size_bytes: int, tags: Mapping[str, str], *, pool: str | None, has_driver: bool
) -> list[str]:
    """Give the command that makes a volume: ``-y -Wy`` wipes what an earlier volume left at its beginning."""
    check_lvm_name(group, name)
    size = f"{_sectors(size_bytes)}b"
    kind = ["-L", size] if pool is None else ["-V", size, "--thinpool", pool]
    wiping = ["-Wy", "-Zy"] if has_driver else ["-Wn", "-Zn", "-an"]
    if pool is not None:
        wiping = []  # a thin volume has nothing of anybody
    return ["lvcreate", "-y", *wiping, *kind, *_tags("--addtag", tags), "-n", name, group]


def snapshot_words(group: str, origin: str, name: str, tags: Mapping[str, str]) -> list[str]:
    """Give the command that makes a thin snapshot, which is active like any other volume (``-kn``)."""
    check_lvm_name(group, name)
    return ["lvcreate", "-y", "-s", "-kn", "-ay", *_tags("--addtag", tags), "-n", name, f"{group}/{origin}"]


def rename_words(group: str, name: str, new_name: str) -> list[str]:
    """Give the command that renames a volume."""
    check_lvm_name(group, new_name)
    return ["lvrename", "-y", group, name, new_name]


def extend_words(group: str, name: str, size_bytes: int) -> list[str]:
    """Give the command that makes a volume larger."""
    return ["lvextend", "-y", "-L", f"{_sectors(size_bytes)}b", f"{group}/{name}"]


def retag_words(group: str, name: str, *, add: Mapping[str, str], remove: Mapping[str, str]) -> list[str]:
    """Give the command that changes tags."""
    return ["lvchange", "-y", *_tags("--deltag", remove), *_tags("--addtag", add), f"{group}/{name}"]


def protect_words(group: str, name: str) -> list[str]:
    """Give the command after which nobody writes to a volume, and no start of the host makes its device."""
    return ["lvchange", "-y", "-pr", "-ky", f"{group}/{name}"]


def deactivate_words(group: str, name: str) -> list[str]:
    """Give the command that takes a volume's device away; its bytes stay."""
    return ["lvchange", "-y", "-an", f"{group}/{name}"]


def activate_words(group: str, name: str) -> list[str]:
    """Give the command that makes a volume's device."""
    return ["lvchange", "-y", "-ay", "-K", f"{group}/{name}"]


def remove_words(group: str, name: str) -> list[str]:
    """Give the command that removes a volume."""
    return ["lvremove", "-y", f"{group}/{name}"]


def volume_words(group: str) -> list[str]:
    """Give the command that reports all volumes of a group."""
    return [*_report("lvs"), "-o", ",".join(VOLUME_FIELDS), group]


def group_words(group: str) -> list[str]:
    """Give the command that reports a group."""
    return [*_report("vgs"), "-o", ",".join(GROUP_FIELDS), group]


def check_group_name(group: str) -> str:
    """Return what a volume group may be called.

    Raises:
        InvalidInput: it may not.
    """
    if PATTERN.fullmatch(group) is None or group in {".", ".."}:
        raise InvalidInput(
            "invalid volume group", details=f"{group[:80]!r} is no group's name", field="lvm_volume_group"
        )
    return group


def check_lvm_name(group: str, name: str) -> str:
    """Return a name that a volume of this group may have.

    Raises:
        InvalidInput: it may not; names ``volume_name``.
    """
    check_volume_name(name, what=NAME_FIELD)
    check_group_name(group)
    characters = len(group) + len(name) + group.count("-") + name.count("-") + 1
    if characters > FULL_NAME_MAX_CHARACTERS:
        raise InvalidInput(
            "the volume's name is too long",
            details=f"{name[:80]!r} and the group's name have {characters} characters together, hyphens counting twice",
            resolution=f"use {characters - FULL_NAME_MAX_CHARACTERS} less",
            field=NAME_FIELD,
        )
    return name


def _report(command: str) -> list[str]:
    return [command, "--reportformat", "json", "--units", "b", "--nosuffix"]


def _sectors(size_bytes: int) -> int:
    """Give a size that LVM takes: it refuses those that are no multiple of a sector."""
    if size_bytes <= 0:
        raise InvalidInput("invalid size", details=f"{size_bytes} bytes", field=SIZE_FIELD)
    return -(-size_bytes // SECTOR_BYTES) * SECTOR_BYTES


def _tags(option: str, tags: Mapping[str, str]) -> Sequence[str]:
    words = []
    for key, value in sorted(tags.items()):
        tag = f"{key}={value}"
        if TAG.fullmatch(tag) is None or tag.startswith("-"):
            raise InvalidInput("invalid tag", details=f"{tag[:80]!r} has characters that LVM's tags cannot have")
        words += [option, tag]
    return words
