"""Which templates go: a pure judgement by need, age and space."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, kw_only=True)
class MachineTemplate:
    """A machine kept ready to be cloned.

    ``image`` is a name, or an id where the name stands for another image by now; ``size_bytes`` is what it takes on
    disk; ``uses`` counts the sandboxes whose disks lie over it, at first hand or through others; ``is_needed`` tells
    whether one of these or a checkpoint cannot do without; a stale one is found by no creation any more.
    """

    id: str
    image: str
    cpus: int
    memory_mib: int
    size_bytes: int
    uses: int
    created_at: datetime
    used_at: datetime
    is_needed: bool
    is_stale: bool


def unwanted(
    templates: Sequence[MachineTemplate], *, now: datetime, max_age_s: float, max_bytes: int, missing_bytes: int
) -> list[str]:
    """Tell the ids of the templates to delete: stale and old ones, then the least recently used until there is room.

    What is needed always stays.

    Args:
        max_age_s: seconds without use after which a template is old.
        max_bytes: what all of them, needed ones too, may take.
        missing_bytes: what the file system lacks.
    """
    total_bytes = sum(template.size_bytes for template in templates)
    excess_bytes = max(total_bytes - max_bytes, missing_bytes)
    doomed = []
    for template in sorted(templates, key=lambda template: (not _is_over(template, now, max_age_s), template.used_at)):
        if template.is_needed:
            continue
        if excess_bytes > 0 or _is_over(template, now, max_age_s):
            doomed.append(template.id)
            excess_bytes -= template.size_bytes
    return doomed


def _is_over(template: MachineTemplate, now: datetime, max_age_s: float) -> bool:
    return template.is_stale or (now - template.used_at).total_seconds() > max_age_s
