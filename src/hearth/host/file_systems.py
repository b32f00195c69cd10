"""What a partition holds, by its first bytes. Pure; a stranger may have written anything there."""

from __future__ import annotations

import struct
from dataclasses import dataclass

LOOK_BYTES = 128 * 1024
EXT_AT, EXT_MAGIC, EXT_MAGIC_AT = 1024, 0xEF53, 56
EXT_64BIT, EXT_JOURNAL_DEVICE = 0x80, 0x8
OTHERS = (
    (0, b"XFSB", "XFS"),
    (0x10040, b"_BHRfS_M", "btrfs"),
    (0, b"LUKS\xba\xbe", "encrypted (LUKS)"),
    (512, b"LABELONE", "a physical volume of LVM"),
    (0, b"hsqs", "squashfs"),
    (0x400, b"\x10\x20\xf5\xf2", "F2FS"),
    (0x52, b"FAT32", "FAT"),
    (0x36, b"FAT", "FAT"),
    (3, b"NTFS", "NTFS"),
    (0xFF6, b"SWAPSPACE2", "swap space"),
)
"""Where, which bytes, and what that is called."""


@dataclass(frozen=True, kw_only=True)
class Ext:
    """What an ext4's superblock says: its size and the size of its blocks in bytes, its label."""

    size_bytes: int
    block_bytes: int
    label: str
    needs_device: bool
    """Its journal is on another disk."""


def read_ext(start: bytes) -> Ext | None:
    """Read the superblock of an ext2, ext3 or ext4 (kernel documentation, ext4, "The Super Block")."""
    block = start[EXT_AT : EXT_AT + 1024]
    if len(block) < 1024 or struct.unpack_from("<H", block, EXT_MAGIC_AT)[0] != EXT_MAGIC:
        return None
    (blocks,) = struct.unpack_from("<I", block, 4)
    (log_block,) = struct.unpack_from("<I", block, 24)
    (incompatible,) = struct.unpack_from("<I", block, 96)
    if log_block > 6:
        return None
    if incompatible & EXT_64BIT:
        blocks |= struct.unpack_from("<I", block, 0x150)[0] << 32
    block_bytes = 1024 << log_block
    return Ext(
        size_bytes=blocks * block_bytes,
        block_bytes=block_bytes,
        label=block[120:136].split(b"\0")[0].decode("utf-8", "replace"),
        needs_device=bool(incompatible & EXT_JOURNAL_DEVICE),
    )


def name_of(start: bytes) -> str:
    """Say what begins so, for people."""
    if read_ext(start) is not None:
        return "ext4"
    for at, magic, name in OTHERS:
        if start[at : at + len(magic)] == magic:
            return name
    return "nothing known"
