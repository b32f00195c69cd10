"""ext4 on a file nobody has mounted: made, mended and grown by e2fsprogs, without any right of root."""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass

from hearth.errors import HearthError, NoSpace
from hearth.volume.base import MEBIBYTE, Owner, VolumeDamaged
from hearth.volume.confined import DISK, Outcome, run_on

LABEL_BYTES = 16
TOOL_TIMEOUT_S = 3600.0
"""A full check of a volume of some TiB on a slow disk takes most of an hour."""
MENDED = frozenset({0, 1})
"""e2fsck(8): 0 nothing was wrong, 1 what was wrong has been corrected."""
JOURNALS = ((4096 * MEBIBYTE, 64), (512 * MEBIBYTE, 16))
"""From which size on a journal of how many MiB; mke2fs would take up to 1 GiB, which stays allocated on the host."""
SECTOR_BYTES = 512
SUPERBLOCK_OFFSET = 1024
SUPERBLOCK_BYTES = 1024
SUPERBLOCK = struct.Struct("<56xHH36xI")
"""Magic number, state, features a writer must know: ext4's documentation, "The Super Block"."""
MAGIC = 0xEF53
STATE_ERRORS = 2
NEEDS_RECOVERY = 4
FULL = "No space left on device"


class MakeFailed(HearthError):
    """mke2fs or resize2fs could not do its work; ``details`` hold what it said."""


@dataclass(frozen=True, kw_only=True)
class Health:
    """What a superblock says of itself; a guest may have written anything there."""

    is_ext: bool
    is_dirty: bool
    """It was not unmounted, or errors were found: it wants ``mend`` before it can be mounted read-only."""


def read_health(disk: int, *, offset_bytes: int = 0) -> Health:
    """Look at the superblock of an open volume, whose file system begins at ``offset_bytes``."""
    block = os.pread(disk, SUPERBLOCK_BYTES, offset_bytes + SUPERBLOCK_OFFSET)
    if len(block) < SUPERBLOCK_BYTES:
        return Health(is_ext=False, is_dirty=False)
    magic, state, incompatible = SUPERBLOCK.unpack_from(block)
    dirty = bool(state & STATE_ERRORS or incompatible & NEEDS_RECOVERY)
    return Health(is_ext=magic == MAGIC, is_dirty=magic == MAGIC and dirty)


async def make(disk: int, *, label: str, owner: Owner) -> None:
    """Make an ext4 that fills an open, empty file; the file stays sparse.

    Nothing is kept back for root. All inode tables are initialised here, where zeros are holes, so that no guest does
    it in its background. The top directory is ``owner``'s.

    Raises:
        NoSpace: the host's disk is full.
        MakeFailed: anything else.
    """
    size_bytes = os.fstat(disk).st_size
    extended = f"lazy_itable_init=0,lazy_journal_init=0,root_owner={owner.uid}:{owner.gid}"
    journal = next((["-J", f"size={mib}"] for least, mib in JOURNALS if size_bytes >= least), [])
    argv = ["mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096", "-m", "0", "-L", label[:LABEL_BYTES], *journal]
    _require_success(await run_on(disk, [*argv, "-E", extended, DISK], timeout_s=TOOL_TIMEOUT_S), "mke2fs")


async def mend(disk: int, *, fully: bool = False, offset_bytes: int = 0) -> None:
    """Replay the journal and correct what can be corrected without losing anything.

    Args:
        fully: look at everything, even where the file system says that it is well.
        offset_bytes: where the file system begins.

    Raises:
        VolumeDamaged: somebody has to decide what may be lost.
    """
    outcome = await run_on(
        disk, ["e2fsck", "-p", *(["-f"] if fully else []), _at(offset_bytes)], timeout_s=TOOL_TIMEOUT_S
    )
    if outcome.status not in MENDED:
        raise VolumeDamaged(
            "the volume's file system is damaged",
            details=f"e2fsck {outcome.how}: {outcome.tail}",
            resolution="attach it read-write to a sandbox and repair it there with 'e2fsck -f' on its device",
            field="volume",
        )


async def fill(disk: int, *, offset_bytes: int = 0, size_bytes: int | None = None) -> None:
    """Grow the file system to the end of its file; it must have been mended fully before.

    Args:
        offset_bytes, size_bytes: of the file system's place, where that is not the whole file.

    Raises:
        NoSpace: the host's disk is full.
        MakeFailed: anything else.
    """
    size = [] if size_bytes is None else [f"{size_bytes // SECTOR_BYTES}s"]
    argv = ["resize2fs", _at(offset_bytes), *size]
    _require_success(await run_on(disk, argv, timeout_s=TOOL_TIMEOUT_S), "resize2fs")


def _at(offset_bytes: int) -> str:
    """Name a file system in the tool's file, as libext2fs reads such names."""
    return f"{DISK}?offset={offset_bytes}" if offset_bytes else DISK


def _require_success(outcome: Outcome, tool: str) -> None:
    if outcome.status == 0:
        return
    if FULL in outcome.tail:
        raise NoSpace("the disk is full", details=f"{tool}: {outcome.tail}", resolution="free some space on the host")
    raise MakeFailed(f"{tool} failed", details=f"{outcome.how}: {outcome.tail}")
