"""The few system calls Python does not offer, by way of the C library; each raises OSError with the kernel's reason."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

CLONE_NEWNET = 0x40000000
"""linux/sched.h"""
MS_BIND = 0x1000
MS_REC = 0x4000
MS_SHARED = 0x100000
"""linux/mount.h"""
MNT_DETACH = 2
"""sys/mount.h"""
CLOSE_RANGE_CLOEXEC = 4
"""linux/close_range.h; Linux 5.11"""
LAST_DESCRIPTOR = 0xFFFFFFFF

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)


def unshare(flags: int) -> None:
    """Move the calling thread into new namespaces (unshare(2)); other threads stay where they are."""
    _check(_libc.unshare(ctypes.c_int(flags)), "unshare")


def setns(descriptor: int, kind: int) -> None:
    """Move the calling thread into the namespace an open file stands for (setns(2)) of this ``kind``."""
    _check(_libc.setns(ctypes.c_int(descriptor), ctypes.c_int(kind)), "setns")


def mount(source: str | Path, target: Path, flags: int) -> None:
    """mount(2) without a file system type or data, as bind mounts and changes of propagation want it."""
    arguments = (os.fsencode(source), os.fsencode(target), None, ctypes.c_ulong(flags), None)
    _check(_libc.mount(*arguments), str(target))


def unmount(target: Path, flags: int) -> None:
    """umount2(2)."""
    _check(_libc.umount2(os.fsencode(target), ctypes.c_int(flags)), str(target))


def seal_descriptors(first: int = 3) -> None:
    """Mark every open descriptor from ``first`` on close-on-exec, inherited ones included (close_range(2))."""
    arguments = (ctypes.c_uint(first), ctypes.c_uint(LAST_DESCRIPTOR), ctypes.c_uint(CLOSE_RANGE_CLOEXEC))
    _check(_libc.close_range(*arguments), "close_range")
