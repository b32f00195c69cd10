"""Files in memory that nobody can change any more: what several VMMs map as the memory they start from.

QEMU opens a memory backend's file for writing even when it maps it privately, and keeps it open. The seals, unlike the
mode of a file on disk, hold for every descriptor: a VMM that was broken out of cannot reach the others' memory.
"""

from __future__ import annotations

import fcntl
import os

from hearth.errors import HearthError
from hearth.host.block_hash import transfer_blocks, write_block

SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL
MODE = 0o666
"""VMMs run as users of their own and open the file anew by /proc/self/fd; who has no descriptor has no path to it."""


class ContentDamaged(HearthError):
    """A file does not hold what it should."""


def sealed_copy(name: str, source: int, size: int, *, block_hash: str | None) -> int:
    """Copy an open sparse file into a sealed memfd; holes stay holes and take no memory.

    Args:
        name: shown as ``/memfd:<name>`` among the mappings of whoever maps it.
        source: a descriptor of a regular file.
        size: which the file must have, in bytes.
        block_hash: the checksum of ``hearth.host.block_hash`` that what was copied must have; None asks for none.

    Returns:
        A descriptor, closed on exec, that is the caller's to close.

    Raises:
        ContentDamaged: another size or checksum.
        OSError: the file cannot be read, or there is not enough memory.
    """
    found_size = os.fstat(source).st_size
    if found_size != size:
        raise ContentDamaged("a file has the wrong size", details=f"{found_size} bytes instead of {size}")
    target = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.fchmod(target, MODE)
        os.ftruncate(target, size)
        found = transfer_blocks(source, size, lambda number, block: write_block(target, number, block))
        if block_hash is not None and found != block_hash:
            raise ContentDamaged("a file has the wrong checksum", details=f"{found} instead of {block_hash}")
        fcntl.fcntl(target, fcntl.F_ADD_SEALS, SEALS)
    except EOFError as error:
        os.close(target)
        raise ContentDamaged("a file became shorter while it was read", details=str(error)) from error
    except BaseException:
        os.close(target)
        raise
    return target
