"""How short of memory this host is, in three levels: by the time its tasks wait for memory, and by what is left."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from hearth.host.facts import parse_meminfo

PSI = Path("/proc/pressure/memory")
MEMINFO = Path("/proc/meminfo")

SOME_STALLED_PERCENT = 10.0
HIGH_STALLED_PERCENT = 40.0
"""Share of the last 10 s in which some task waited for memory. For comparison: systemd-oomd kills when all tasks of a
group wait for 60 % of 30 s (oomd.conf(5)); we only send idle machines to sleep, and do so much earlier."""
HIGH_ALL_STALLED_PERCENT = 5.0
"""The same for every task at once: nothing got done meanwhile."""

SOME_AVAILABLE = 0.15
HIGH_AVAILABLE = 0.05
"""Share of memory that can be had without swapping, where the kernel does not tell about waiting."""
SOME_AVAILABLE_WITH_PSI = 0.05
HIGH_AVAILABLE_WITH_PSI = 0.02
"""And where it does: waiting is told too late for a burst of new machines, so nearly nothing left counts in itself."""


class PressureLevel(StrEnum):
    """How short of memory the host is."""

    NONE = "none"
    SOME = "some"
    HIGH = "high"


@dataclass(frozen=True, kw_only=True)
class Stall:
    """Shares of the last 10 s, in percent, in which some task, and all tasks, waited for memory."""

    some_percent: float
    full_percent: float


@dataclass(frozen=True, kw_only=True)
class Memory:
    """The host's memory now; ``swap_free_mib`` is 0 where there is neither swap nor zram."""

    level: PressureLevel
    total_mib: int
    available_mib: int
    swap_free_mib: int


def parse_stall(text: str) -> Stall | None:
    """Read the text of /proc/pressure/memory (Documentation/accounting/psi.rst); None when it is not such a text."""
    shares: dict[str, float] = {}
    for line in text.splitlines():
        kind, *fields = line.split()
        for field in fields:
            name, _, value = field.partition("=")
            if name == "avg10":
                with contextlib.suppress(ValueError):
                    shares[kind] = float(value)
    if "some" not in shares:
        return None
    return Stall(some_percent=shares["some"], full_percent=shares.get("full", 0.0))


def judge(stall: Stall | None, available: float) -> PressureLevel:
    """Give the level.

    Args:
        stall: None where the kernel does not tell.
        available: MemAvailable as a share of MemTotal, 0 to 1.
    """
    some, high = (
        (SOME_AVAILABLE, HIGH_AVAILABLE) if stall is None else (SOME_AVAILABLE_WITH_PSI, HIGH_AVAILABLE_WITH_PSI)
    )
    stall = stall or Stall(some_percent=0.0, full_percent=0.0)
    if available < high or stall.some_percent >= HIGH_STALLED_PERCENT or stall.full_percent >= HIGH_ALL_STALLED_PERCENT:
        return PressureLevel.HIGH
    if available < some or stall.some_percent >= SOME_STALLED_PERCENT:
        return PressureLevel.SOME
    return PressureLevel.NONE


def read_memory(*, psi: Path = PSI, meminfo: Path = MEMINFO) -> Memory:
    """Look at this host; takes about 0.1 ms.

    Raises:
        OSError: there is no /proc.
        KeyError: it does not tell of memory.
    """
    stall = None
    # Missing without CONFIG_PSI; there, but not to be read, when the kernel was started with psi=0.
    with contextlib.suppress(OSError):
        stall = parse_stall(psi.read_text())
    values = parse_meminfo(meminfo.read_text())
    total_mib, available_mib = values["MemTotal"], values["MemAvailable"]
    return Memory(
        level=judge(stall, available_mib / max(total_mib, 1)),
        total_mib=total_mib,
        available_mib=available_mib,
        swap_free_mib=values.get("SwapFree", 0),
    )
