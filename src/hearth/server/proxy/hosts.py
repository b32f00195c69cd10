"""Which published name a request is for, by its Host (RFC 9110, section 7.2): a label right before the zone."""

from __future__ import annotations

import re
from collections.abc import Iterable

_HOST = re.compile(rb"([A-Za-z0-9.-]{1,255}?)\.?(?::[0-9]{1,5})?")
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


def label_of(headers: Iterable[tuple[bytes, bytes]], zone: str | None) -> str | None:
    """Give the label of the one Host that lies in ``zone``; None where there is no such Host, or more than one."""
    hosts = [value for name, value in headers if name == b"host"]
    if zone is None or len(hosts) != 1 or (host := _HOST.fullmatch(hosts[0])) is None:
        return None
    label, dot, rest = host[1].decode("ascii").lower().partition(".")
    return label if dot and rest == zone and _LABEL.fullmatch(label) else None
