"""What a request for a sandbox may ask of this host: a pure judgement of a spec."""

from __future__ import annotations

import os
from dataclasses import dataclass

from hearth.bounds import MAX_CPUS, MAX_DISK_MIB, MAX_MEMORY_MIB, MIN_MEMORY_MIB
from hearth.engine.base import Engine
from hearth.errors import Conflict, InvalidInput
from hearth.model import (
    ENV_NAME_PATTERN,
    SandboxSpec,
    check_name,
    check_range,
)
from hearth.outfit import Outfit, check_outfit

MAX_LABELS = 64
MAX_LABEL_CHARACTERS = 256
MAX_ENV_BYTES = 128 * 1024


@dataclass(frozen=True, kw_only=True)
class HostLimits:
    """The most one sandbox may have here."""

    cpus: int
    memory_mib: int


def host_limits() -> HostLimits:
    """Read this host's: all its CPUs, all its memory."""
    memory_mib = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // (1024 * 1024)
    return HostLimits(cpus=min(os.cpu_count() or 1, MAX_CPUS), memory_mib=min(memory_mib, MAX_MEMORY_MIB))


@dataclass(frozen=True, kw_only=True)
class Admission:
    """Says of a sandbox to come whether it can be here at all, whatever there is of its user's."""

    limits: HostLimits
    engine: Engine

    def check(self, spec: SandboxSpec, outfit: Outfit) -> None:
        """Refuse what cannot be.

        Raises:
            InvalidInput: names the field.
            Conflict: the engine's machines have no disks of their own size.
        """
        check_spec(spec, self.limits)
        check_outfit(outfit)
        if spec.disk_mib is not None and not self.engine.capabilities.disk_size:
            raise Conflict(
                "this engine's machines have no disks of their own size",
                details=self.engine.name,
                resolution="leave out disk_size_mb, or use the engine qemu",
                field="disk_size_mb",
            )


def check_spec(spec: SandboxSpec, limits: HostLimits) -> None:
    """Refuse what cannot be run here.

    Raises:
        InvalidInput: names the field.
    """
    check_name(spec.name)
    check_name(spec.image, what="image")
    check_range(spec.cpus, 1, limits.cpus, what="cpus")
    check_range(spec.memory_mib, MIN_MEMORY_MIB, limits.memory_mib, what="memory_mb", unit="MiB")
    if spec.disk_mib is not None:
        check_range(spec.disk_mib, 1, MAX_DISK_MIB, what="disk_size_mb", unit="MiB")
    for name, value in spec.env.items():
        if ENV_NAME_PATTERN.fullmatch(name) is None or "\0" in value:
            raise InvalidInput(
                "invalid environment variable",
                details=f"env has a variable named {name[:80]!r}" + (" with a NUL byte" if "\0" in value else ""),
                resolution="names are letters, digits and '_', not beginning with a digit; values hold no NUL",
                field="env",
            )
    size = sum(len(name.encode()) + len(value.encode()) for name, value in spec.env.items())
    check_range(size, 0, MAX_ENV_BYTES, what="env", unit="bytes")
    check_range(len(spec.labels), 0, MAX_LABELS, what="labels", unit="labels")
    if any(max(len(key), len(value)) > MAX_LABEL_CHARACTERS or not key for key, value in spec.labels.items()):
        raise InvalidInput(
            "invalid label",
            details="a label's key is empty, or its key or value is too long",
            resolution=f"use 1 to {MAX_LABEL_CHARACTERS} characters",
            field="labels",
        )
