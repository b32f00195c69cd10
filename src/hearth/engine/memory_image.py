"""Files of guest memory: all of it, sparse, or what a machine wrote over another snapshot's memory, packed.

A diff is a header, the extents with data, the extents of zeros, then the data of all extents in a row, as
``hearth.engine.packing`` packs it. All numbers are little-endian; offsets are bytes from the start of the guest's
memory.
"""

from __future__ import annotations

import itertools
import mmap
import os
import re
import struct
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from hearth.engine.manifest import FileRecord, refused
from hearth.engine.packing import packed, unpacked
from hearth.host.block_hash import BLOCK_BYTES, BlockHash, transfer_blocks
from hearth.host.files import new_file, opened
from hearth.host.memory import Data, Extent, buffer_of, total_bytes, write_extents

PAGE_BYTES = mmap.PAGESIZE
ZERO_PAGE = bytes(PAGE_BYTES)
WORD_BYTES = 8

HEADER = struct.Struct("<8sIIQQQ")
"""magic, version, page size, size of the memory, extents with data, extents of zeros."""
MAGIC = b"hearthdf"
VERSION = 2
ENTRY = struct.Struct("<QQ")
"""offset, length."""


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
    runs: list[Extent]
    starts: list[int]
    zeros: list[Extent]
    rows: list[memoryview]

    def each_run(self) -> Iterator[tuple[Extent, memoryview]]:
        """Give the runs with their bytes."""
        for run, start in zip(self.runs, self.starts, strict=True):
            with self.view[start : start + run.length] as part:
                yield run, part


def write_full(path: Path, memory_bytes: int, extents: Sequence[Extent], data: Data) -> FileRecord:
    """Write all of a machine's memory to a new sparse file, durably; pages of zeros become holes.

    Args:
        path: must not exist.
        memory_bytes: the size of the machine's memory.
        extents: in order; what is between them is zero.
        data: the bytes of the extents in a row, as ``read_extents`` gives them.

    Raises:
        NoSpace: the file system is full; nothing is left.
        ValueError: the extents are not pages within the memory in order, or the data is shorter than they are.
    """
    check_extents(extents, memory_bytes)
    with _split(extents, data) as pages, new_file(path) as descriptor:
        os.ftruncate(descriptor, memory_bytes)

        def write() -> None:
            for run, part in pages.each_run():
                _write_at(descriptor, run.offset, part)

        def compute() -> str:
            checksum = BlockHash()
            position = 0
            for run, part in pages.each_run():
                checksum.update_zeros(run.offset - position)
                checksum.update(part)
                position = run.end
            checksum.update_zeros(memory_bytes - position)
            return checksum.hexdigest()

        return FileRecord(size_bytes=memory_bytes, block_hash=_write_and_hash(descriptor, write, compute))


def write_diff(path: Path, memory_bytes: int, extents: Sequence[Extent], data: Data) -> FileRecord:
    """Write what a machine wrote over its base to a new file, durably; a run of pages that became zero takes 16 bytes.

    What is between the extents is the base's; else as ``write_full``.
    """
    check_extents(extents, memory_bytes)
    with _split(extents, data) as pages, new_file(path) as descriptor:
        checksum = BlockHash()
        size = 0
        for part in itertools.chain([_head(memory_bytes, pages.runs, pages.zeros)], packed(pages.rows)):
            _write_at(descriptor, size, memoryview(part))
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
                extents, zeros, start = _parse(content, memory_bytes)
                with memoryview(content) as whole, whole[start : expected.size_bytes] as chunks:
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


def _parse(content: mmap.mmap, memory_bytes: int) -> tuple[list[Extent], list[Extent], int]:
    """Give the extents with data, those of zeros and where the data begins."""
    magic, version, page_bytes, found_bytes, data_count, zero_count = HEADER.unpack_from(content)
    if magic != MAGIC or version != VERSION:
        raise ValueError(f"it is no diff of version {VERSION}")
    if page_bytes != PAGE_BYTES:
        raise ValueError(f"pages of {page_bytes} bytes, here they have {PAGE_BYTES}")
    if found_bytes != memory_bytes:
        raise ValueError(f"of a memory of {found_bytes} bytes instead of {memory_bytes}")
    if (data_count + zero_count) * ENTRY.size > len(content) - HEADER.size:
        raise ValueError(f"{data_count} and {zero_count} extents do not fit into it")
    middle = HEADER.size + data_count * ENTRY.size
    end = middle + zero_count * ENTRY.size
    extents = [Extent(*entry) for entry in ENTRY.iter_unpack(content[HEADER.size : middle])]
    zeros = [Extent(*entry) for entry in ENTRY.iter_unpack(content[middle:end])]
    check_extents(sorted([*extents, *zeros]), memory_bytes)
    check_extents(extents, memory_bytes)
    return extents, zeros, end


def _head(memory_bytes: int, extents: Sequence[Extent], zeros: Sequence[Extent]) -> bytes:
    header = HEADER.pack(MAGIC, VERSION, PAGE_BYTES, memory_bytes, len(extents), len(zeros))
    return header + b"".join(ENTRY.pack(*extent) for extent in [*extents, *zeros])


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


@contextmanager
def _split(extents: Sequence[Extent], data: Data) -> Iterator[_Pages]:
    """Tell pages of zeros from the others; the views are valid inside the ``with``."""
    size = total_bytes(extents)
    with ExitStack() as views:
        whole = views.enter_context(memoryview(data))
        if whole.nbytes < size:
            raise ValueError(f"data of {whole.nbytes} bytes for extents of {size}")
        view = views.enter_context(whole[:size])
        is_zero = _zero_pages(view)
        rows = [
            views.enter_context(view[row.start() * PAGE_BYTES : row.end() * PAGE_BYTES])
            for row in DATA_RUN.finditer(is_zero)
        ]
        pages = _Pages(view=view, runs=[], starts=[], zeros=[], rows=rows)
        start = 0
        for extent in extents:
            _cut(extent, start, is_zero, pages)
            start += extent.length
        yield pages


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


def _write_and_hash(descriptor: int, write: Callable[[], None], compute: Callable[[], str]) -> str:
    """Write and sync a file while another thread computes its checksum of the same bytes."""
    with ThreadPoolExecutor(1, thread_name_prefix="checksum") as pool:
        checksum = pool.submit(compute)
        write()
        os.fsync(descriptor)
        return checksum.result()


def _write_at(descriptor: int, offset: int, view: memoryview) -> None:
    done = 0
    while done < view.nbytes:
        done += os.pwrite(descriptor, view[done:], offset + done)
