"""What a volume group's volumes are to us, as their names and tags tell; LVM's metadata is all that is written down.

One that has a name for people and our tags is a finished volume: the rename to it is the one step that makes it so.
Everything else of ours has a name nobody is told, whose end says what it is:

``.new``    is being made for the job in its tags
``.old``    gave its name to another one; while nobody has that name it gets it back
``.gone``   was deleted or replaced: its bytes are removed before its space is
``.base``   an image, written once, that thin volumes are snapshots of; nobody writes to it
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path

from hearth.errors import InvalidInput
from hearth.volume.golden.base import IMAGE_TAG, JOB_TAG, NAME_FIELD, GoldenImage, GoldenVolume
from hearth.volume.golden.lvm_reports import LogicalVolume
from hearth.volume.golden.lvm_words import check_lvm_name

PREFIX = "hearth."
NAME_TAG = "hearth_name"
"""What it is to be called, or was."""
HOME_TAG = "hearth_home"
"""Which data directory's daemon tidies up after it; two on one group leave each other's work alone."""
NEED_TAG = "hearth_need"
"""Bytes that a thin one may yet take of its pool while it is being made."""
BASE_TAG = "hearth_base"
"""Which image, as which format, a base holds."""
GROWS_TAG = "hearth_grows_from"
"""The size in bytes up to which one that is growing is its owner's; beyond it there may be another's bytes."""
OWN_TAGS = frozenset({NAME_TAG, HOME_TAG, NEED_TAG, BASE_TAG, GROWS_TAG})


class Aside(StrEnum):
    """What a volume is that has no name for people."""

    NEW = "new"
    OLD = "old"
    GONE = "gone"
    BASE = "base"


_NAME = re.compile(rf"{re.escape(PREFIX)}[0-9a-f]{{12}}\.({'|'.join(Aside)})")


def aside_name(kind: Aside) -> str:
    """Give a name that no other volume has."""
    return f"{PREFIX}{secrets.token_hex(6)}.{kind}"


def kind_of(volume: LogicalVolume) -> Aside | None:
    """Tell what a volume is aside; None when it has a name for people, or is none of ours."""
    found = _NAME.fullmatch(volume.name)
    if found is None or not volume.tag(JOB_TAG):
        return None
    return Aside(found[1])


def jobs_making(volumes: Iterable[LogicalVolume], home: str) -> set[str]:
    """Give the jobs that something of a home is, or was, being made for."""
    return {each.tag(JOB_TAG) for each in volumes if kind_of(each) is Aside.NEW and each.tag(HOME_TAG) == home}


def is_finished(volume: LogicalVolume) -> bool:
    """Tell whether this is a volume of ours that was made to its end."""
    is_ours = bool(volume.tag(JOB_TAG) and volume.tag(IMAGE_TAG)) and volume.is_plain
    return is_ours and not volume.name.startswith(PREFIX)


def golden_of(volume: LogicalVolume) -> GoldenVolume:
    """Give a finished volume as all storages tell of theirs."""
    tags = dict(tag.partition("=")[::2] for tag in volume.tags)
    return GoldenVolume(
        name=volume.name,
        path=Path(volume.path),
        size_bytes=trusted_bytes(volume),
        format="raw",
        job=volume.tag(JOB_TAG),
        image=volume.tag(IMAGE_TAG),
        tags={key: value for key, value in tags.items() if key not in OWN_TAGS},
    )


def trusted_bytes(volume: LogicalVolume) -> int:
    """Give the size up to which a volume holds nobody else's bytes."""
    return int(volume.tag(GROWS_TAG) or volume.size_bytes)


def base_tag(image: GoldenImage) -> str:
    """Give what a base of this image is tagged with."""
    return f"{image.key}.{image.format}"


def base_of(image: GoldenImage, home: str, volumes: Iterable[LogicalVolume]) -> LogicalVolume | None:
    """Find the base of an image."""
    wanted = base_tag(image)
    found = (volume for volume in volumes if volume.tag(BASE_TAG) == wanted and volume.tag(HOME_TAG) == home)
    return next((volume for volume in found if kind_of(volume) is Aside.BASE), None)


def check_name(group: str, name: str) -> str:
    """Return a name that a finished volume of this group may have.

    Raises:
        InvalidInput: it may not; names ``volume_name``.
    """
    check_lvm_name(group, name)
    if name.startswith(PREFIX):
        raise InvalidInput(
            "invalid volume_name",
            details=f"{name[:80]!r} begins with {PREFIX!r}, as volumes do that are being made",
            resolution="choose another name",
            field=NAME_FIELD,
        )
    return name
