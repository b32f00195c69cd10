"""qcow2 overlays without a process: an empty one is written in a fraction of a millisecond, a finished one is frozen.

The file names no backing file: every command line of ours gives QEMU the layers as nodes of its own, so that nothing
inside a disk decides what the host opens. Format: docs/interop/qcow2.txt of QEMU.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from pathlib import Path

from hearth.errors import InvalidInput
from hearth.host.files import data_ranges, new_file, opened, require_free

CLUSTER_BITS = 16
CLUSTER_BYTES = 1 << CLUSTER_BITS
"""QEMU's own default, 64 KiB."""
BLOCK_BYTES = 512
"""What st_blocks counts in, whatever the file system's blocks are (stat(2))."""
SECTOR_BYTES = 512
L2_ENTRIES = CLUSTER_BYTES // 8
REFCOUNT_ORDER = 4
"""Reference counts of 16 bits, the default."""
VERSION = 3
HEADER_BYTES = 112
HEADER = struct.Struct(">4sIQIIQIIQQIIQQQQII8x")
"""magic, version, backing file's offset and length, cluster bits, size, encryption, entries and offset of the L1
table, offset and clusters of the refcount table, snapshots and their offset, three sets of feature bits, refcount
order, header's length; padding for the compression type."""
EXTENSIONS_END = struct.pack(">II", 0, 0)
MAGIC = b"QFI\xfb"
REFCOUNT_TABLE_AT = CLUSTER_BYTES
REFCOUNT_BLOCK_AT = 2 * CLUSTER_BYTES
L1_TABLE_AT = 3 * CLUSTER_BYTES
SIZE_MAX_BYTES = 1 << 42
"""4 TiB: its L1 table is one cluster, and all of an empty overlay is counted by one refcount block."""

FICLONE = 0x40049409
"""``_IOW(0x94, 9, int)``, linux/fs.h."""
CANNOT_CLONE = frozenset({errno.EOPNOTSUPP, errno.ENOTTY, errno.EXDEV, errno.EINVAL, errno.ENOSYS})
CANNOT_COPY_RANGE = frozenset({errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP})


def create_overlay(path: Path, virtual_size_bytes: int) -> None:
    """Write a new, empty overlay: reading it gives what the layers below hold, or zeros behind their end.

    It is not synced: a disk nobody wrote to is made again.

    Args:
        path: must not exist; it gets mode 0600.
        virtual_size_bytes: of the disk the guest sees, a multiple of 512.

    Raises:
        InvalidInput: the size is none a disk can have.
        FileExistsError: there is such a file.
        NoSpace: the file system is full; nothing is left.
    """
    if virtual_size_bytes % SECTOR_BYTES or not 0 < virtual_size_bytes <= SIZE_MAX_BYTES:
        raise InvalidInput(
            "invalid disk size",
            details=f"a disk of {virtual_size_bytes} bytes",
            resolution=f"use a multiple of {SECTOR_BYTES} bytes up to 4 TiB",
            field="virtual_size_bytes",
        )
    l1_entries = -(-virtual_size_bytes // (CLUSTER_BYTES * L2_ENTRIES))
    with new_file(path) as descriptor:
        os.pwrite(descriptor, _header(virtual_size_bytes, l1_entries), 0)
        os.pwrite(descriptor, struct.pack(">Q", REFCOUNT_BLOCK_AT), REFCOUNT_TABLE_AT)
        os.pwrite(descriptor, struct.pack(">H", 1) * (L1_TABLE_AT // CLUSTER_BYTES + 1), REFCOUNT_BLOCK_AT)
        os.ftruncate(descriptor, L1_TABLE_AT + CLUSTER_BYTES)


def _header(virtual_size_bytes: int, l1_entries: int) -> bytes:
    backing, encryption, snapshots, features = (0, 0), 0, (0, 0), (0, 0, 0)
    fields = HEADER.pack(
        *(MAGIC, VERSION, *backing, CLUSTER_BITS, virtual_size_bytes, encryption),
        *(l1_entries, L1_TABLE_AT, REFCOUNT_TABLE_AT, 1, *snapshots),
        *(*features, REFCOUNT_ORDER, HEADER_BYTES),
    )
    return fields + EXTENSIONS_END


def virtual_size(path: Path) -> int:
    """Give the size in bytes of the disk a guest sees in a qcow2 file.

    Raises:
        InvalidInput: it is no such file.
    """
    with path.open("rb") as file:
        head = file.read(HEADER.size)
    if len(head) < HEADER.size or head[:4] != MAGIC:
        raise InvalidInput("not a qcow2 file", details=str(path), field="path")
    size: int = HEADER.unpack(head)[5]
    return size


def copy_overlay(source: Path, target: Path) -> None:
    """Copy a disk that nobody writes to now; making the copy durable is left for later (``snapshot.record``).

    The blocks are shared where the file system can do that (XFS, Btrfs); else they are copied, holes staying holes.

    Args:
        source: of a paused machine whose VMM has written out what it held.
        target: must not exist; it gets mode 0600.

    Raises:
        NoSpace: the file system is full; nothing is left. One that has not the room is never filled to find that out:
            every machine on it would stand still.
    """
    with opened(source) as original, new_file(target) as descriptor:
        if not clone(original, descriptor):
            require_free(target.parent, os.fstat(original).st_blocks * BLOCK_BYTES)
            copy_sparse(original, descriptor)


def clone(source: int, target: int) -> bool:
    """Let one open file share all blocks of another; False where the file system cannot (ioctl_ficlone(2))."""
    try:
        fcntl.ioctl(target, FICLONE, source)
    except OSError as error:
        if error.errno not in CANNOT_CLONE:
            raise
        return False
    return True


def copy_sparse(source: int, target: int) -> None:
    """Copy what is not a hole between open files; the kernel does it, by shared blocks where it can."""
    # The size first: a file that grows gets room ahead of it on XFS, in what should be holes.
    os.ftruncate(target, os.fstat(source).st_size)
    for start, end in data_ranges(source):
        position = start
        while position < end:
            count = _copy_some(source, target, position, end - position)
            if not count:
                break  # the file ends earlier by now
            position += count


def _copy_some(source: int, target: int, position: int, count: int) -> int:
    try:
        return os.copy_file_range(source, target, count, position, position)
    except OSError as error:
        if error.errno not in CANNOT_COPY_RANGE:
            raise
    os.lseek(target, position, os.SEEK_SET)
    return os.sendfile(target, source, position, count)
