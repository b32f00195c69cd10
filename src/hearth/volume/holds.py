"""Kernel locks on a volume's bytes that live exactly as long as an open description of them, in whatever process.

Open file description locks (fcntl(2)): the daemon takes them on the descriptor it hands to a VMM and closes its own
copy; they end when the VMM closes its, however it dies. No daemon has to be there, and none can forget. Bytes far
beyond any volume's end stand for who has it: they need not exist, and VMMs lock others.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import struct

from hearth.volume.base import AttachMode

MODE_BYTE = 1 << 60
"""Locked exclusively by who writes, shared by those who read. QEMU uses bytes 100 to 299 (block/file-posix.c)."""
FIRST_HOLDER_BYTE = MODE_BYTE + 1
HOLDER_BITS = 48
"""Each holder locks a byte of its own, drawn from its id: whether *that one* still lives can be asked."""
_FLOCK = struct.Struct("hhqqi4x")
"""struct flock of 64-bit Linux: type, whence, start, length, process id."""
_BUSY = frozenset({errno.EAGAIN, errno.EACCES})


def take(descriptor: int, mode: AttachMode, holder: str | None = None) -> bool:
    """Lock an open volume for reading or writing in the name of ``holder``; False when others are in the way.

    What was locked before a False stays locked until the descriptor is closed, which is what the caller does then.
    """
    kind = fcntl.F_WRLCK if mode is AttachMode.READ_WRITE else fcntl.F_RDLCK
    if not _set(descriptor, kind, MODE_BYTE):
        return False
    return holder is None or _set(descriptor, fcntl.F_RDLCK, _byte_of(holder))


def is_free(descriptor: int, mode: AttachMode) -> bool:
    """Tell whether ``take`` by somebody else would succeed now."""
    return _is_free(descriptor, fcntl.F_WRLCK if mode is AttachMode.READ_WRITE else fcntl.F_RDLCK, MODE_BYTE)


def is_held_by(descriptor: int, holder: str) -> bool:
    """Tell whether any process has the volume open in the name of ``holder``."""
    return not _is_free(descriptor, fcntl.F_WRLCK, _byte_of(holder))


def _set(descriptor: int, kind: int, byte: int) -> bool:
    try:
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _FLOCK.pack(kind, 0, byte, 1, 0))
    except OSError as error:
        if error.errno in _BUSY:
            return False
        raise
    return True


def _is_free(descriptor: int, kind: int, byte: int) -> bool:
    found = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, _FLOCK.pack(kind, 0, byte, 1, 0))
    return bool(_FLOCK.unpack(found)[0] == fcntl.F_UNLCK)


def _byte_of(holder: str) -> int:
    return FIRST_HOLDER_BYTE + int.from_bytes(hashlib.sha256(holder.encode()).digest()[: HOLDER_BITS // 8], "big")
