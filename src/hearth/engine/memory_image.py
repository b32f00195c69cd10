"""Files of guest memory: all of it, sparse, or what a machine wrote over another snapshot's memory, packed.

A diff is the data of all extents in a row, as ``hearth.engine.packing`` packs it, then the extents with data, the
extents of zeros, and a trailer that tells of both: it is written while memory is still being read. All numbers are
little-endian; offsets are bytes from the start of the guest's memory.
"""

from __future__ import annotations

import itertools
import mmap
import os
import re
import struct
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from hearth.engine.manifest import FileRecord, refused
from hearth.engine.packing import packed, unpacked
from hearth.host.block_hash import BLOCK_BYTES, BlockHash, transfer_blocks
from hearth.host.files import new_file, opened
from hearth.host.memory import Data, Extent, buffer_of, total_bytes, write_extents

PAGE_BYTES = mmap.PAGESIZE
ZERO_PAGE = bytes(PAGE_BYTES)
WORD_BYTES = 8

TRAILER = struct.Struct("<8sIIQQQ")
"""magic, version, page size, size of the memory, extents with data, extents of zeros."""
MAGIC = b"hearthdf"
VERSION = 3
ENTRY = struct.Struct("<QQ")
"""offset, length."""
WINDOW_BYTES = 8 << 20
"""So much is read at a time of a memory that is not held as a whole."""
STREAMED_BYTES = 4 * WINDOW_BYTES
"""What is held at most of such a memory: chunks that are being packed keep their windows."""

Read = Callable[[Sequence[Extent]], Data]
"""Gives the bytes of some extents in a row; asked for each page once, in order."""


class Diff:
    """What a machine wrote over a base. Use it as a context manager, or ``close`` it, to free its memory.

    ``data`` holds the bytes of ``extents`` in a row; ``zeros`` are pages that became zero.
    """

    def __init__(self, content: mmap.mmap, extents: Sequence[Extent], zeros: Sequence[Extent]) -> None:
        self._content = content
        self.extents = extents
        self.zeros = zeros
        self.data = memoryview(content)[: total_bytes(extents)]

    def apply(self, pid: int, address: int) -> None:
        """Write it over the memory of a process that maps the base privately at ``address``.

        Raises:
            OSError: the process is gone, not ours, or its mapping is smaller.
        """
        write_extents(pid, address, self.extents, self.data)
        # Anonymous memory nobody wrote to is all one page of zeros: it costs nothing.
        with buffer_of(total_bytes(self.zeros)) as zeros:
            write_extents(pid, address, self.zeros, zeros)

    def close(self) -> None:
        """Free the memory; doing it twice is fine."""
        self.data.release()
        self._content.close()

    def __enter__(self) -> Diff:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass(frozen=True, kw_only=True)
class _Pages:
    """Extents cut into those with something in them and those of zeros only.

    ``starts`` tell where in the buffer the bytes of each of ``runs`` begin; ``rows`` are the same bytes in as few
    pieces as they lie there.
    """

    view: memoryview
    rows: list[memoryview]
    runs: list[Extent] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    zeros: list[Extent] = field(default_factory=list)

    def each_run(self) -> Iterator[tuple[Extent, memoryview]]:
        """Give the runs with their bytes."""
        for run, start in zip(self.runs, self.starts, strict=True):
            with self.view[start : start + run.length] as part:
                yield run, part


class _FullHash:
    """The checksum of a whole memory of which runs with something in them come in order."""

    def __init__(self) -> None:
        self._checksum = BlockHash()
        self._position = 0

    def update(self, pages: _Pages) -> None:
        for run, part in pages.each_run():
            self._checksum.update_zeros(run.offset - self._position)
            self._checksum.update(part)
            self._position = run.end

    def hexdigest(self, memory_bytes: int) -> str:
        self._checksum.update_zeros(memory_bytes - self._position)
        return self._checksum.hexdigest()


def write_full(path: Path, memory_bytes: int, extents: Sequence[Extent], data: Data | Read) -> FileRecord:
    """Write all of a machine's memory to a new sparse file, durably; pages of zeros become holes.

    Args:
        path: must not exist.
        memory_bytes: the size of the machine's memory.
        extents: in order; what is between them is zero.
        data: the bytes of the extents in a row, as ``read_extents`` gives them, or what reads them piece by piece:
            then no more than ``STREAMED_BYTES`` are held at a time.

    Raises:
        NoSpace: the file system is full; nothing is left.
        ValueError: the extents are not pages within the memory in order, or the data is shorter than they are.
    """
    check_extents(extents, memory_bytes)
    with new_file(path) as descriptor, ThreadPoolExecutor(1, thread_name_prefix="checksum") as pool:
        os.ftruncate(descriptor, memory_bytes)
        checksum = _FullHash()
        hashing: deque[Future[None]] = deque()
        for pages in _windows(extents, data):
            hashing.append(pool.submit(checksum.update, pages))
            for run, part in pages.each_run():
                write_all(descriptor, part, run.offset)
            if len(hashing) > 1:
                hashing.popleft().result()
        os.fsync(descriptor)
        while hashing:
            hashing.popleft().result()
        return FileRecord(size_bytes=memory_bytes, block_hash=checksum.hexdigest(memory_bytes))


def write_diff(path: Path, memory_bytes: int, extents: Sequence[Extent], data: Data | Read) -> FileRecord:
    """Write what a machine wrote over its base to a new file, durably; a run of pages that became zero takes 16 bytes.

    What is between the extents is the base's; else as ``write_full``.
    """
    check_extents(extents, memory_bytes)
    runs: list[Extent] = []
    zeros: list[Extent] = []

    def rows() -> Iterator[memoryview]:
        for pages in _windows(extents, data):
            runs.extend(pages.runs)
            zeros.extend(pages.zeros)
            yield from pages.rows

    def index() -> Iterator[bytes]:
        # Asked for when all rows were taken.
        runs_, zeros_ = _merged(runs), _merged(zeros)
        yield b"".join(ENTRY.pack(*extent) for extent in [*runs_, *zeros_])
        yield TRAILER.pack(MAGIC, VERSION, PAGE_BYTES, memory_bytes, len(runs_), len(zeros_))

    with new_file(path) as descriptor:
        checksum = BlockHash()
        size = 0
        for part in itertools.chain(packed(rows()), index()):
            write_all(descriptor, part, size)
            checksum.update(part)
            size += len(part)
        os.fsync(descriptor)
        return FileRecord(size_bytes=size, block_hash=checksum.hexdigest())


def read_diff(path: Path, memory_bytes: int, *, expected: FileRecord) -> Diff:
    """Read a diff and compare every byte of it with its checksum.

    Raises:
        SnapshotRefused: it is missing, cut short, changed, or of a machine of another size.
    """
    name = f"{path.parent.name}/{path.name}"
    try:
        with opened(path) as descriptor, _checked_content(descriptor, name, expected) as content:
            try:
                extents, zeros, end = _parse(content, expected.size_bytes, memory_bytes)
                with memoryview(content) as whole, whole[:end] as chunks:
                    data = unpacked(chunks, total_bytes(extents))
            except (ValueError, struct.error) as error:
                raise refused(name, f"the memory's index is damaged: {error}") from error
            return Diff(data, extents, zeros)
    except (OSError, EOFError) as error:
        raise refused(name, f"the memory cannot be read: {error}") from error


def _checked_content(descriptor: int, name: str, expected: FileRecord) -> mmap.mmap:
    size = os.fstat(descriptor).st_size
    if size != expected.size_bytes:
        raise refused(name, f"it has {size} bytes instead of {expected.size_bytes}")
    # Not a mapping of the file: a disk that fails to read it would then end this process.
    content = buffer_of(size)
    try:
        with memoryview(content) as view:

            def keep(number: int, block: memoryview) -> None:
                view[number * BLOCK_BYTES :][: len(block)] = block

            if transfer_blocks(descriptor, size, keep) != expected.block_hash:
                raise refused(name, "its checksum is wrong")
    except BaseException:
        content.close()
        raise
    return content


def _parse(content: mmap.mmap, size: int, memory_bytes: int) -> tuple[list[Extent], list[Extent], int]:
    """Give the extents with data, those of zeros and where the data ends; ``size`` bytes are the file's."""
    if size < TRAILER.size:
        raise ValueError(f"it has {size} bytes and no trailer")
    index_end = size - TRAILER.size
    magic, version, page_bytes, found_bytes, data_count, zero_count = TRAILER.unpack_from(content, index_end)
    if magic != MAGIC or version != VERSION:
        raise ValueError(f"it is no diff of version {VERSION}")
    if page_bytes != PAGE_BYTES:
        raise ValueError(f"pages of {page_bytes} bytes, here they have {PAGE_BYTES}")
    if found_bytes != memory_bytes:
        raise ValueError(f"of a memory of {found_bytes} bytes instead of {memory_bytes}")
    start = index_end - (data_count + zero_count) * ENTRY.size
    if start < 0:
        raise ValueError(f"{data_count} and {zero_count} extents do not fit into it")
    middle = start + data_count * ENTRY.size
    extents = [Extent(*entry) for entry in ENTRY.iter_unpack(content[start:middle])]
    zeros = [Extent(*entry) for entry in ENTRY.iter_unpack(content[middle:index_end])]
    check_extents(sorted([*extents, *zeros]), memory_bytes)
    check_extents(extents, memory_bytes)
    return extents, zeros, start


def check_extents(extents: Sequence[Extent], memory_bytes: int) -> None:
    """See that extents are pages within a memory, in order, none twice.

    Raises:
        ValueError: they are not; says which.
    """
    end = 0
    for offset, length in extents:
        if offset % PAGE_BYTES or length % PAGE_BYTES or length <= 0:
            raise ValueError(f"the extent of {length} bytes at {offset} is not made of pages")
        if offset < end:
            raise ValueError(f"the extent at {offset} is out of order or overlaps the one before, which ends at {end}")
        end = offset + length
    if end > memory_bytes:
        raise ValueError(f"an extent ends at {end}, behind the memory's end at {memory_bytes}")


DATA_RUN = re.compile(rb"\x00+")
ZERO_RUN_OR_DATA_RUN = re.compile(rb"(\x01+)|\x00+")


def _windows(extents: Sequence[Extent], data: Data | Read) -> Iterator[_Pages]:
    """Give the pages with their bytes: all at once where they are there, else as they are read."""
    if not callable(data):
        yield _split(extents, data)
        return
    size = total_bytes(extents)
    # Little is read at once: several threads are then busy with it from the start.
    for part in _parts(extents, size if size <= STREAMED_BYTES else WINDOW_BYTES):
        yield _split(part, data(part))


def _parts(extents: Sequence[Extent], most: int) -> Iterator[list[Extent]]:
    """Cut extents into parts of ``most`` bytes, the last may be smaller."""
    part: list[Extent] = []
    room = most
    for extent in extents:
        start = extent.offset
        while start < extent.end:
            length = min(room, extent.end - start)
            part.append(Extent(start, length))
            start += length
            room -= length
            if not room:
                yield part
                part, room = [], most
    if part:
        yield part


def _merged(extents: Sequence[Extent]) -> list[Extent]:
    """Put together what windows have cut."""
    whole: list[Extent] = []
    for extent in extents:
        if whole and whole[-1].end == extent.offset:
            whole[-1] = Extent(whole[-1].offset, whole[-1].length + extent.length)
        else:
            whole.append(extent)
    return whole


def _split(extents: Sequence[Extent], data: Data) -> _Pages:
    """Tell pages of zeros from the others; the data is freed when nobody has the pages any more."""
    size = total_bytes(extents)
    whole = memoryview(data)
    if whole.nbytes < size:
        raise ValueError(f"data of {whole.nbytes} bytes for extents of {size}")
    view = whole[:size]
    is_zero = _zero_pages(view)
    rows = [view[row.start() * PAGE_BYTES : row.end() * PAGE_BYTES] for row in DATA_RUN.finditer(is_zero)]
    pages = _Pages(view=view, rows=rows)
    start = 0
    for extent in extents:
        _cut(extent, start, is_zero, pages)
        start += extent.length
    return pages


def _cut(extent: Extent, start: int, is_zero: bytearray, pages: _Pages) -> None:
    """Add an extent, whose bytes begin at ``start`` of the buffer, to the pages, run by run."""
    first, last = start // PAGE_BYTES, (start + extent.length) // PAGE_BYTES
    if is_zero.find(1, first, last) < 0:
        pages.runs.append(extent)
        pages.starts.append(start)
        return
    for run in ZERO_RUN_OR_DATA_RUN.finditer(is_zero, first, last):
        part = Extent(extent.offset + (run.start() - first) * PAGE_BYTES, (run.end() - run.start()) * PAGE_BYTES)
        if run[1]:
            pages.zeros.append(part)
        else:
            pages.runs.append(part)
            pages.starts.append(run.start() * PAGE_BYTES)


def _zero_pages(view: memoryview) -> bytearray:
    """Give one byte for each page: 1 where it is all zeros."""
    marks = bytearray(view.nbytes // PAGE_BYTES)
    # Most pages with something in them show it in their first word, which is looked at without copying the page.
    with view.cast("Q") as words, words[:: PAGE_BYTES // WORD_BYTES] as firsts:
        for page, word in enumerate(firsts.tolist()):
            if not word and bytes(view[page * PAGE_BYTES : (page + 1) * PAGE_BYTES]) == ZERO_PAGE:
                marks[page] = 1
    return marks


def write_all(descriptor: int, data: bytes | memoryview, offset: int = 0) -> None:
    """Write bytes to their place in an open file."""
    view = memoryview(data)
    done = 0
    while done < view.nbytes:
        done += os.pwrite(descriptor, view[done:], offset + done)
