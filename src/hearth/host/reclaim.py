"""How much memory a process uses, and giving it back to a host that has somewhere to put it."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import NamedTuple

from hearth.host.memory import IOV_MAX, IOVEC, PROC

SWAPS = PROC / "swaps"
SYS_PROCESS_MADVISE = 440
"""The same on every architecture, Linux 5.10; the C library has no name for it before glibc 2.36."""
MADV_PAGEOUT = 21
"""linux/mman.h"""
RANGE_MAX_BYTES = 1 << 30
"""One call takes up to 2 GiB less a page of all its ranges; a smaller one lets others get at the memory in between."""
NO_SWAP = "the host has no swap"

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


class MemoryUse(NamedTuple):
    """The resident memory of one process in bytes.

    ``private_bytes`` and ``shared_bytes`` are by how many map a page: what a single process maps of a file counts as
    private. ``anonymous_bytes`` is what the process made itself: written pages of private mappings.
    """

    private_bytes: int
    shared_bytes: int
    anonymous_bytes: int
    swapped_bytes: int


class PageOut(NamedTuple):
    """How far it came: the kernel was told about ``advised_bytes``; ``obstacle`` says why not about all, if so.

    The kernel may keep some of them; ``memory_use`` tells what left.
    """

    advised_bytes: int
    obstacle: str | None


class MemoryRange(NamedTuple):
    """Bytes of a process's address space, both multiples of the page size."""

    address: int
    length: int


def memory_use(pid: int) -> MemoryUse:
    """Add up what a process has in memory (/proc/PID/smaps_rollup).

    Raises:
        OSError: it is gone or not ours to look at.
    """
    sums: dict[str, int] = {}
    for line in (PROC / str(pid) / "smaps_rollup").read_text().splitlines()[1:]:
        name, _, value = line.partition(":")
        sums[name] = int(value.split()[0]) * 1024  # kB there are KiB
    return MemoryUse(
        private_bytes=sums["Private_Clean"] + sums["Private_Dirty"],
        shared_bytes=sums["Shared_Clean"] + sums["Shared_Dirty"],
        anonymous_bytes=sums["Anonymous"],
        swapped_bytes=sums["Swap"],
    )


def page_out_obstacle() -> str | None:
    """Say in words why memory cannot be paged out on this host; None when it can."""
    return None if swap_free_bytes() else NO_SWAP if not _swaps() else "the host's swap is full"


def swap_free_bytes() -> int:
    """Add up the unused swap of this host, zram included."""
    return sum((int(size) - int(used)) * 1024 for _, _, size, used, *_ in _swaps())


def _swaps() -> list[list[str]]:
    try:
        lines = SWAPS.read_text().splitlines()
    except FileNotFoundError:  # a kernel without swap
        return []
    return [line.split() for line in lines[1:]]


def page_out(pidfd: int, ranges: Sequence[MemoryRange]) -> PageOut:
    """Tell the kernel to move memory of another process to swap now (process_madvise(2), MADV_PAGEOUT).

    Pages that others map too stay. Blocks while the pages are written: on a slow disk, seconds.

    Raises:
        ProcessLookupError: the process has ended.
    """
    if obstacle := page_out_obstacle():
        return PageOut(0, obstacle)
    advised = 0
    for batch in _batches(ranges):
        vectors = b"".join(IOVEC.pack(*one) for one in batch)
        wanted = sum(one.length for one in batch)
        done = _libc.syscall(
            *(ctypes.c_long(SYS_PROCESS_MADVISE), ctypes.c_int(pidfd)),
            *(ctypes.c_char_p(vectors), ctypes.c_ulong(len(batch))),
            *(ctypes.c_int(MADV_PAGEOUT), ctypes.c_uint(0)),
        )
        number = ctypes.get_errno()
        if done < 0 and number == errno.ESRCH:
            raise ProcessLookupError(number, os.strerror(number))
        if done < 0:
            return PageOut(advised, f"the kernel refuses: {os.strerror(number)}")
        advised += done
        if done < wanted:
            return PageOut(advised, f"the kernel stopped after {advised} bytes: some of the range is not mapped")
    return PageOut(advised, None)


def _batches(ranges: Sequence[MemoryRange]) -> Iterator[list[MemoryRange]]:
    """Cut into what one call takes: one large piece, or many small ones."""
    pieces = (piece for one in ranges for piece in _pieces(one))
    per_call = max(1, min(IOV_MAX, RANGE_MAX_BYTES // max((one.length for one in ranges), default=1)))
    while batch := list(islice(pieces, per_call)):
        yield batch


def _pieces(one: MemoryRange) -> Iterator[MemoryRange]:
    for start in range(0, one.length, RANGE_MAX_BYTES):
        yield MemoryRange(one.address + start, min(RANGE_MAX_BYTES, one.length - start))
