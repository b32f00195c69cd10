"""Volumes as words of a command line."""

from __future__ import annotations

import re

from hearth.errors import InvalidInput
from hearth.sdk.volume_calls import NewVolumeOptions, VolumeOptions

_SIZE = re.compile(r"([0-9]{1,9})([mgt]?)(?:i?b)?", re.IGNORECASE)
_UNIT_MIB = {"": 1, "m": 1, "g": 1024, "t": 1024 * 1024}


def read_size(text: str, *, what: str = "size") -> int:
    """Read a size such as ``512``, ``512M``, ``20G`` or ``1T``, in MiB.

    Raises:
        InvalidInput: it is of another form.
    """
    match = _SIZE.fullmatch(text)
    if match is None:
        raise InvalidInput(
            f"invalid {what}",
            details=f"{text[:20]!r} is no size",
            resolution="write it as 512M, 20G or 1T; a plain number is MiB",
            field=what,
        )
    return int(match[1]) * _UNIT_MIB[match[2].lower()]


def read_place(text: str, *, what: str = "--volume") -> VolumeOptions:
    """Read ``NAME:/path`` or ``NAME:/path:ro``.

    Raises:
        InvalidInput: it is of another form.
    """
    name, colon, mount = text.partition(":")
    if not name or not colon or not mount.startswith("/"):
        raise _malformed(text, what, "NAME:/path or NAME:/path:ro")
    if mount.endswith(":ro"):
        return {"name": name, "mount": mount.removesuffix(":ro"), "read_only": True}
    return {"name": name, "mount": mount}


def read_new_volume(text: str, *, what: str = "--new-volume") -> NewVolumeOptions:
    """Read ``NAME:SIZE:/path``.

    Raises:
        InvalidInput: it is of another form.
    """
    name, _, rest = text.partition(":")
    size, colon, mount = rest.partition(":")
    if not name or not size or not colon or not mount.startswith("/"):
        raise _malformed(text, what, "NAME:SIZE:/path")
    return {"name": name, "size_mb": read_size(size, what=what), "mount": mount}


def _malformed(text: str, what: str, form: str) -> InvalidInput:
    return InvalidInput(
        f"invalid {what}",
        details=f"{text[:80]!r} is not of the form {form}",
        resolution=f"write it as {form}, such as data:{'1G:' if 'SIZE' in form else ''}/srv/data",
        field=what,
    )
