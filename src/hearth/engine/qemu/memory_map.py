"""Where a VMM has the guest's memory, and whose: told by the VMM and by the kernel, for this daemon and the next.

A memory that clones share has the id of its snapshot in the name of its mapping.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from hearth.engine.qemu.qmp import Qmp
from hearth.errors import EngineFailed
from hearth.host.processes import PROC

NAME_PREFIX = "hearth-memory-"
_MAPPING = re.compile(r"([0-9a-f]+)-([0-9a-f]+) \S+ \S+ \S+ \S+ *(.*)")


@dataclass(frozen=True, kw_only=True)
class GuestMemory:
    """A mapping in a VMM: ``length`` bytes at ``address``. ``base`` is the id of the snapshot it is a copy of."""

    address: int
    length: int
    base: str | None


async def memory_address(monitor: Qmp) -> int:
    """Ask QEMU where in its own address space the guest's memory begins.

    Raises:
        EngineFailed: it does not say.
    """
    said = str(await monitor.execute("human-monitor-command", {"command-line": "gpa2hva 0"}))
    try:
        return int(said.split()[-1], 16)
    except (IndexError, ValueError) as error:
        raise EngineFailed("QEMU does not tell where the guest's memory is", details=said[:200]) from error


def guest_memory(pid: int, address: int) -> GuestMemory:
    """Look up the mapping at ``address`` in a process.

    Raises:
        EngineFailed: nothing is mapped there.
        OSError: the process is gone or not ours to look at.
    """
    for line in (PROC / str(pid) / "maps").read_text().splitlines():
        match = _MAPPING.match(line)
        if match is not None and (start := int(match[1], 16)) <= address < (end := int(match[2], 16)):
            name = match[3].removesuffix(" (deleted)").removeprefix("/memfd:")
            base = name.removeprefix(NAME_PREFIX) if name.startswith(NAME_PREFIX) else None
            return GuestMemory(address=start, length=end - start, base=base)
    raise EngineFailed("the VMM has no memory where it says", details=f"process {pid}, {address:#x}")
