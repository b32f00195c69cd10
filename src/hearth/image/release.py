"""Which distribution and release the host runs, from os-release(5)."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass

from hearth.errors import HostUnfit

FAMILIES = ("debian", "ubuntu")


@dataclass(frozen=True, kw_only=True)
class Release:
    """``id`` and ``codename`` as in os-release; ``family`` is the distribution whose archive it uses."""

    id: str
    family: str
    codename: str


def parse_release(fields: Mapping[str, str]) -> Release:
    """Tell the release from os-release's fields.

    Raises:
        HostUnfit: neither Debian nor Ubuntu, or no code name.
    """
    own = fields.get("ID", "linux")
    candidates = [own, *fields.get("ID_LIKE", "").split()]
    family = next((name for name in candidates if name in FAMILIES), None)
    codename = fields.get("UBUNTU_CODENAME") if family == "ubuntu" else None
    codename = codename or fields.get("VERSION_CODENAME")
    if family is None or not codename:
        raise HostUnfit(
            "this system's packages cannot be used",
            details=f"os-release says ID={own!r}, VERSION_CODENAME={codename!r}",
            resolution="build the images on Debian or Ubuntu",
        )
    return Release(id=own, family=family, codename=codename)


def read_release() -> Release:
    """Tell this host's release.

    Raises:
        HostUnfit: neither Debian nor Ubuntu, or no os-release.
    """
    try:
        return parse_release(platform.freedesktop_os_release())
    except OSError as error:
        raise HostUnfit("this system has no os-release file", details=str(error)) from error
