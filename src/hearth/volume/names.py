"""Names of volumes: LVM's rules for all backends, so that a name means the same wherever its volume is kept."""

from __future__ import annotations

import re

from hearth.errors import InvalidInput

PATTERN = re.compile(r"[a-zA-Z0-9+_.][a-zA-Z0-9+_.-]*")
MAX_CHARACTERS = 100
"""LVM allows 127 together with the volume group's name and what stands between them."""
RESERVED_PREFIXES = ("snapshot", "pvmove")
RESERVED_INFIXES = (
    *("_tmeta", "_tdata", "_cdata", "_cmeta", "_mlog", "_mimage"),
    *("_rimage", "_rmeta", "_vorigin", "_pmspare"),
)
"""lvm(8), "Valid names": logical volumes that LVM makes itself are called so."""
UNFINISHED_SUFFIX = ".tmp"
"""Unfinished work on disk ends so (``hearth.host.files``), and a sweep removes it."""


def check_volume_name(value: str, *, what: str = "volume") -> str:
    """Return ``value`` when a volume may be called so.

    Raises:
        InvalidInput: it may not; the error names the field ``what`` and the rule.
    """
    problem = _problem(value)
    if problem is None:
        return value
    raise InvalidInput(
        f"invalid {what}",
        details=f"{what} {value[:80]!r} {problem}",
        resolution=f"use 1 to {MAX_CHARACTERS} of a-z, A-Z, 0-9 and '+_.-', not beginning with '-'",
        field=what,
    )


def _problem(value: str) -> str | None:
    if not value:
        return "is empty"
    if len(value) > MAX_CHARACTERS:
        return f"has {len(value)} characters"
    if value.startswith("-"):
        return "begins with '-', as options do"
    if PATTERN.fullmatch(value) is None:
        return "has characters that no volume name may have"
    if value in {".", ".."}:
        return "is a directory's own name"
    if value.startswith(RESERVED_PREFIXES):
        return f"begins with one of {', '.join(RESERVED_PREFIXES)}, which are reserved"
    if found := next((infix for infix in RESERVED_INFIXES if infix in value), None):
        return f"has {found!r} in it, which is reserved"
    if value.endswith(UNFINISHED_SUFFIX):
        return f"ends with {UNFINISHED_SUFFIX!r}, as unfinished work does"
    return None
