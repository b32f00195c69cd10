"""The memory of another process: which pages of a private mapping it has written, and carrying them in and out.

A clone maps its template's memory privately; what it wrote since then is all that tells it from the template.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import itertools
import mmap
import os
import re
import struct
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from hearth.host.files import opened

PROC = Path("/proc")
KPAGEFLAGS = PROC / "kpageflags"

PAGEMAP_SCAN = 0xC0606610
"""``_IOWR('f', 16, struct pm_scan_arg)``, linux/fs.h; Linux 6.7."""
PAGE_IS_FILE = 1 << 2
PAGE_IS_PRESENT = 1 << 3
PAGE_IS_SWAPPED = 1 << 4
PAGE_IS_PFNZERO = 1 << 5
SCAN_ARGUMENT = struct.Struct("=12Q")
"""size, flags, start, end, walk_end, vec, vec_len, max_pages, category_inverted, category_mask, category_anyof_mask,
return_mask."""
PAGE_REGION = struct.Struct("=3Q")
"""start, end, categories."""
SCAN_REGIONS = 16384
"""Regions of one ioctl: 384 KiB, more than a machine of some GiB usually has."""

PAGEMAP_ENTRY_BYTES = 8
PAGEMAP_CHUNK_PAGES = 1 << 18
"""2 MiB of entries, for 1 GiB of memory."""
PAGEMAP_PRESENT = 0x80
PAGEMAP_SWAPPED = 0x40
PAGEMAP_SHARED = 0x20
PAGEMAP_EXCLUSIVE = 0x01
"""Bits 63, 62, 61 and 56 of an entry as its top byte has them: Documentation/admin-guide/mm/pagemap.rst."""
PFN_MASK = (1 << 55) - 1
KPF_ZERO_PAGE = 1 << 24
"""linux/kernel-page-flags.h; set for the huge zero page, too."""

IOVEC = struct.Struct("@NN")
IOV_MAX = 1024
"""Vectors of one call, linux/uio.h."""

_libc = ctypes.CDLL(None, use_errno=True)
for _transfer in (_libc.process_vm_readv, _libc.process_vm_writev):
    _transfer.restype = ctypes.c_ssize_t


Data = bytes | bytearray | memoryview | mmap.mmap
"""Bytes in a row; a memoryview must be a writable one, for only such tell their address."""


class Extent(NamedTuple):
    """Pages in a row: bytes from the start of the region they are in, multiples of the page size."""

    offset: int
    length: int

    @property
    def end(self) -> int:
        return self.offset + self.length


def total_bytes(extents: Iterable[Extent]) -> int:
    """Add up the lengths."""
    return sum(extent.length for extent in extents)


def written(pid: int, address: int, length: int) -> list[Extent]:
    """Give the pages of a private mapping that its process has written to, swapped ones included.

    Pages that were only read are not among them, be they the file's or the kernel's page of zeros.

    Args:
        pid: of a process that stands still, or the answer is old when it comes.
        address: of the mapping in that process, in bytes.
        length: of the mapping, in bytes.

    Returns:
        Extents relative to ``address``, in order, neighbours merged.

    Raises:
        OSError: the process is gone or not ours to look at, or not all of that is mapped privately: what is written to
            a shared mapping cannot be told.
    """
    _require_private(pid, address, address + length)
    try:
        return written_by_scan(pid, address, length)
    except OSError as error:
        if error.errno != errno.ENOTTY:
            raise
    return written_by_pagemap(pid, address, length)


def _require_private(pid: int, position: int, end: int) -> None:
    with (PROC / str(pid) / "maps").open() as lines:
        for line in lines:
            bounds, flags, _ = line.split(" ", 2)
            start, stop = (int(bound, 16) for bound in bounds.split("-"))
            if start <= position < stop:
                if not flags.endswith("p"):
                    break
                position = stop
            if position >= end:
                return
    raise OSError(errno.EFAULT, "not mapped privately", f"{position:#x} in process {pid}")


def written_by_scan(pid: int, address: int, length: int) -> list[Extent]:
    """Do what ``written`` does by the ioctl PAGEMAP_SCAN.

    Raises:
        OSError: ENOTTY where the kernel is older than 6.7, or as ``written`` does.
    """
    regions = (ctypes.c_char * (SCAN_REGIONS * PAGE_REGION.size))()
    unwanted = PAGE_IS_FILE | PAGE_IS_PFNZERO
    wanted = PAGE_IS_PRESENT | PAGE_IS_SWAPPED
    ranges: list[tuple[int, int]] = []
    position, end = address, address + length
    with opened(PROC / str(pid) / "pagemap") as descriptor:
        while position < end:
            # What matches is never a file's: asking for that bit alone makes neighbours of one kind, so one region.
            argument = bytearray(
                SCAN_ARGUMENT.pack(
                    *(SCAN_ARGUMENT.size, 0, position, end, 0, ctypes.addressof(regions), SCAN_REGIONS, 0),
                    *(unwanted, unwanted, wanted, PAGE_IS_FILE),
                )
            )
            count = fcntl.ioctl(descriptor, PAGEMAP_SCAN, argument, True)
            found = memoryview(regions).cast("B")[: count * PAGE_REGION.size]
            ranges += [(start - address, stop - address) for start, stop, _ in PAGE_REGION.iter_unpack(found)]
            # walk_end is not to be trusted: after more than 512 regions it may name an end of long before (Linux 6.18).
            position = ranges[-1][1] + address if count == SCAN_REGIONS else end
    return _merged(ranges)


def written_by_pagemap(pid: int, address: int, length: int) -> list[Extent]:
    """Do what ``written`` does by reading /proc/PID/pagemap; slower, on every kernel.

    Without root's rights the kernel's page of zeros cannot be told from a written page and counts as one.
    """
    page = mmap.PAGESIZE
    ranges: list[tuple[int, int]] = []
    with opened(PROC / str(pid) / "pagemap") as descriptor, _ZeroPages() as zero_pages:
        for first in range(0, length // page, PAGEMAP_CHUNK_PAGES):
            count = min(PAGEMAP_CHUNK_PAGES, length // page - first)
            position = (address // page + first) * PAGEMAP_ENTRY_BYTES
            entries = os.pread(descriptor, count * PAGEMAP_ENTRY_BYTES, position)
            if len(entries) < count * PAGEMAP_ENTRY_BYTES:
                raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH), str(pid))
            kinds = bytearray(entries[PAGEMAP_ENTRY_BYTES - 1 :: PAGEMAP_ENTRY_BYTES].translate(KIND_BY_TOP_BYTE))
            for index in _positions(kinds, MAYBE_ZERO):
                entry = int.from_bytes(entries[index * PAGEMAP_ENTRY_BYTES :][:PAGEMAP_ENTRY_BYTES], "little")
                kinds[index] = UNTOUCHED if zero_pages.has(entry & PFN_MASK) else WRITTEN
            for run in WRITTEN_RUN.finditer(kinds):
                ranges.append(((first + run.start()) * page, (first + run.end()) * page))
    return _merged(ranges)


UNTOUCHED, WRITTEN, MAYBE_ZERO = range(3)
WRITTEN_RUN = re.compile(bytes([WRITTEN]) + b"+")


def _kind(top_byte: int) -> int:
    if top_byte & PAGEMAP_SHARED or not top_byte & (PAGEMAP_PRESENT | PAGEMAP_SWAPPED):
        return UNTOUCHED
    # The page of zeros belongs to everybody; one that is not ours alone may also be shared with a forked child.
    return MAYBE_ZERO if top_byte & PAGEMAP_PRESENT and not top_byte & PAGEMAP_EXCLUSIVE else WRITTEN


KIND_BY_TOP_BYTE = bytes(_kind(top_byte) for top_byte in range(256))


def _positions(kinds: bytearray, wanted: int) -> Iterator[int]:
    position = kinds.find(wanted)
    while position >= 0:
        yield position
        position = kinds.find(wanted, position + 1)


class _ZeroPages:
    """Tells page frames of zeros from others, by /proc/kpageflags; knows none where that is not to be read."""

    def __init__(self) -> None:
        self._known: dict[int, bool] = {0: False}  # who has no right to frame numbers reads 0
        self._descriptor = -1

    def __enter__(self) -> _ZeroPages:
        try:
            self._descriptor = os.open(KPAGEFLAGS, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            self._descriptor = -1
        return self

    def __exit__(self, *_: object) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)

    def has(self, frame: int) -> bool:
        if frame not in self._known:
            flags = b"" if self._descriptor < 0 else os.pread(self._descriptor, 8, frame * 8)
            self._known[frame] = bool(int.from_bytes(flags, "little") & KPF_ZERO_PAGE)
        return self._known[frame]


def read_extents(pid: int, address: int, extents: Sequence[Extent]) -> mmap.mmap:
    """Copy the extents of another process's memory into one buffer, one after the other.

    The buffer is the caller's to close; closing frees its memory at once.

    Raises:
        OSError: the process is gone, not ours to read, or has nothing mapped there.
    """
    buffer = buffer_of(total_bytes(extents))
    try:
        _transfer_all(_libc.process_vm_readv, pid, address, extents, buffer)
    except BaseException:
        buffer.close()
        raise
    return buffer


def buffer_of(size: int) -> mmap.mmap:
    """Give private memory of zeros that takes none until it is touched; an empty one has a byte, as it must.

    With huge pages, where there are some, filling it takes half the time.
    """
    buffer = mmap.mmap(-1, max(1, size), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with suppress(OSError):  # a kernel without them
        buffer.madvise(mmap.MADV_HUGEPAGE)
    return buffer


def write_extents(pid: int, address: int, extents: Sequence[Extent], data: Data) -> None:
    """Copy a buffer as ``read_extents`` gives it into the extents of another process's memory.

    Raises:
        ValueError: the buffer is shorter than the extents.
        OSError: the process is gone, not ours to write, or has no writable mapping there.
    """
    _transfer_all(_libc.process_vm_writev, pid, address, extents, data)


def _transfer_all(
    transfer: ctypes._NamedFuncPointer, pid: int, address: int, extents: Sequence[Extent], data: Data
) -> None:
    if not extents:
        return
    with _address_of(data) as (local, size):
        if size < total_bytes(extents):
            raise ValueError(f"a buffer of {size} bytes for extents of {total_bytes(extents)}")
        for batch in _batches(extents):
            length = total_bytes(batch)
            remote = b"".join(IOVEC.pack(address + extent.offset, extent.length) for extent in batch)
            _transfer_batch(transfer, pid, IOVEC.pack(local, length), remote, len(batch), length)
            local += length


def _transfer_batch(
    transfer: ctypes._NamedFuncPointer, pid: int, local: bytes, remote: bytes, count: int, length: int
) -> None:
    moved = transfer(
        ctypes.c_int(pid),
        *(ctypes.c_char_p(local), ctypes.c_ulong(1)),
        *(ctypes.c_char_p(remote), ctypes.c_ulong(count)),
        ctypes.c_ulong(0),
    )
    if moved < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), f"memory of process {pid}")
    if moved != length:
        # It stops at the first page that is not there (process_vm_readv(2)).
        raise OSError(errno.EFAULT, os.strerror(errno.EFAULT), f"memory of process {pid}, after {moved} bytes")


TRANSFER_MAX_BYTES = 1 << 30
"""One call moves up to 2 GiB less a page; this is below it and a multiple of every page size."""


def _batches(extents: Sequence[Extent]) -> Iterator[list[Extent]]:
    """Cut into what one call takes."""
    batch: list[Extent] = []
    room = TRANSFER_MAX_BYTES
    for extent in itertools.chain.from_iterable(map(_pieces, extents)):
        if batch and (len(batch) == IOV_MAX or extent.length > room):
            yield batch
            batch, room = [], TRANSFER_MAX_BYTES
        batch.append(extent)
        room -= extent.length
    if batch:
        yield batch


def _pieces(extent: Extent) -> Iterable[Extent]:
    if extent.length <= TRANSFER_MAX_BYTES:
        return (extent,)
    starts = range(extent.offset, extent.end, TRANSFER_MAX_BYTES)
    return [Extent(start, min(TRANSFER_MAX_BYTES, extent.end - start)) for start in starts]


@contextmanager
def _address_of(data: Data) -> Iterator[tuple[int, int]]:
    """Give address and size of a buffer in this process and keep it in place meanwhile."""
    if isinstance(data, bytes):
        yield ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p).value or 0, len(data)
        return
    view = ctypes.c_char.from_buffer(data)
    try:
        yield ctypes.addressof(view), memoryview(data).nbytes
    finally:
        del view  # while it is there, an mmap cannot be closed


def _merged(ranges: list[tuple[int, int]]) -> list[Extent]:
    extents: list[Extent] = []
    start = end = 0
    for first, last in ranges:
        if first != end:
            if end > start:
                extents.append(Extent(start, end - start))
            start = first
        end = last
    if end > start:
        extents.append(Extent(start, end - start))
    return extents
