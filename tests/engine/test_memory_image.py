"""Guest memory on disk and back into real processes, whole and damaged in every way."""

from __future__ import annotations

import ctypes
import os
import random
import struct
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from weakref import ref

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.host.mapped_child import mapped_child

from hearth.engine.base import SnapshotRefused
from hearth.engine.manifest import MIB, FileRecord
from hearth.engine.memory_image import (
    ENTRY,
    MAGIC,
    PAGE_BYTES,
    STREAMED_BYTES,
    TRAILER,
    VERSION,
    WINDOW_BYTES,
    check_extents,
    read_diff,
    write_diff,
    write_full,
)
from hearth.engine.snapshot import record
from hearth.errors import EngineFailed, NoSpace
from hearth.host.block_hash import BlockHash, hash_blocks
from hearth.host.files import data_ranges, opened
from hearth.host.memory import Extent, read_extents, written
from hearth.host.sealed import sealed_copy

PAGE = PAGE_BYTES
SIZE = 4 * MIB
PAGES = SIZE // PAGE


def checksum(data: bytes | bytearray) -> str:
    found = BlockHash()
    found.update(data)
    return found.hexdigest()


def rehashed(path: Path) -> FileRecord:
    """Give the record a damaged file would need to be taken for whole."""
    with path.open("rb") as file:
        return FileRecord(size_bytes=path.stat().st_size, block_hash=hash_blocks(file.fileno()))


def test_full_memory_is_sparse_and_zero_pages_are_holes(tmp_path: Path) -> None:
    path = tmp_path / "memory"
    data = b"a" * PAGE + bytes(PAGE) + b"b" * PAGE + bytes(PAGE)
    found = write_full(path, SIZE, [Extent(PAGE, 3 * PAGE), Extent(100 * PAGE, PAGE)], data)
    expected = bytearray(SIZE)
    expected[PAGE : 2 * PAGE] = b"a" * PAGE
    expected[3 * PAGE : 4 * PAGE] = b"b" * PAGE
    assert path.read_bytes() == expected
    assert found == FileRecord(size_bytes=SIZE, block_hash=checksum(expected)) == record(path)
    assert path.stat().st_mode & 0o777 == 0o600
    with opened(path) as descriptor:
        assert list(data_ranges(descriptor)) == [(PAGE, 2 * PAGE), (3 * PAGE, 4 * PAGE)]


def test_memory_without_any_page_is_one_hole(tmp_path: Path) -> None:
    found = write_full(tmp_path / "memory", SIZE, [], b"")
    assert found == FileRecord(size_bytes=SIZE, block_hash=checksum(bytes(SIZE)))
    assert (tmp_path / "memory").stat().st_blocks == 0


def test_diff_is_as_small_as_its_data_can_be_packed_and_keeps_zeros_apart(tmp_path: Path) -> None:
    path = tmp_path / "memory.diff"
    noise = random.Random(1).randbytes(PAGE)
    data = noise + bytes(2 * PAGE) + noise
    found = write_diff(path, SIZE, [Extent(0, 3 * PAGE), Extent(9 * PAGE, PAGE)], data)
    assert found == record(path)
    assert PAGE < found.size_bytes < 2 * PAGE  # noise takes its size, what is there twice takes it once
    assert path.stat().st_mode & 0o777 == 0o600
    with read_diff(path, SIZE, expected=found) as diff:
        assert diff.extents == [Extent(0, PAGE), Extent(9 * PAGE, PAGE)]
        assert diff.zeros == [Extent(PAGE, 2 * PAGE)]
        assert bytes(diff.data) == noise + noise


def test_page_with_a_single_byte_at_its_end_is_no_page_of_zeros(tmp_path: Path) -> None:
    data = bytearray(2 * PAGE)
    data[-1] = 1
    found = write_diff(tmp_path / "memory.diff", SIZE, [Extent(0, 2 * PAGE)], data)
    with read_diff(tmp_path / "memory.diff", SIZE, expected=found) as diff:
        assert (diff.extents, diff.zeros) == ([Extent(PAGE, PAGE)], [Extent(0, PAGE)])


@pytest.mark.root
def test_pages_that_became_zero_overwrite_the_base(tmp_path: Path) -> None:
    with ExitStack() as stack:
        base = stack.enter_context(sealed_ones())
        source = stack.enter_context(mapped_child(SIZE, base))
        source.fill(0, 3, 2)
        extents = written(source.pid, source.address, SIZE)
        data = stack.enter_context(read_extents(source.pid, source.address, extents))
        found = write_diff(tmp_path / "memory.diff", SIZE, extents, data)
        assert found.size_bytes == TRAILER.size + ENTRY.size  # no data, only the index
        target = stack.enter_context(mapped_child(SIZE, base))
        with read_diff(tmp_path / "memory.diff", SIZE, expected=found) as diff:
            diff.apply(target.pid, target.address)
        whole = stack.enter_context(read_extents(target.pid, target.address, [Extent(0, SIZE)]))
        assert whole[:] == b"\1" * 3 * PAGE + bytes(2 * PAGE) + b"\1" * (SIZE - 5 * PAGE)


@contextmanager
def sealed_ones() -> Iterator[int]:
    with tempfile.TemporaryFile() as file:
        file.write(b"\1" * SIZE)
        file.flush()
        descriptor = sealed_copy("ones", file.fileno(), SIZE, block_hash=None)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@pytest.mark.root
@settings(max_examples=25, deadline=None)
@given(touched=st.dictionaries(st.integers(0, PAGES - 1), st.integers(0, 3), max_size=60))
def test_machine_woken_from_base_and_diff_has_the_memory_it_had(touched: dict[int, int]) -> None:
    everything = [Extent(0, SIZE)]
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        base = stack.enter_context(sealed_ones())
        source = stack.enter_context(mapped_child(SIZE, base))
        for page, value in touched.items():
            source.fill(value, page, 1)
        extents = written(source.pid, source.address, SIZE)
        data = stack.enter_context(read_extents(source.pid, source.address, extents))
        found = write_diff(directory / "memory.diff", SIZE, extents, data)
        full = stack.enter_context(read_extents(source.pid, source.address, everything))
        target = stack.enter_context(mapped_child(SIZE, base))
        with read_diff(directory / "memory.diff", SIZE, expected=found) as diff:
            diff.apply(target.pid, target.address)
        woken = stack.enter_context(read_extents(target.pid, target.address, everything))
        assert woken[:] == full[:]
        # The next stop tells the same pages again: diffs stay relative to the base, however often it sleeps.
        assert written(target.pid, target.address, SIZE) == extents
        write_full(directory / "memory", SIZE, everything, full)
        assert (directory / "memory").read_bytes() == full[:]


def make_diff(path: Path) -> FileRecord:
    chosen = random.Random(3)
    extents = [Extent(page * PAGE, PAGE) for page in range(0, PAGES, 5)]
    data = b"".join(bytes(PAGE) if number % 4 == 0 else chosen.randbytes(PAGE) for number in range(len(extents)))
    return write_diff(path, SIZE, extents, data)


def flip(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("position", [0, 8, 4000, -56, -40, -32, -28, -24, -16, -8, -1])
def test_flipped_bit_is_refused(tmp_path: Path, position: int) -> None:
    path = tmp_path / "memory.diff"
    found = make_diff(path)
    flip(path, position)
    with pytest.raises(SnapshotRefused, match="its checksum is wrong"):
        read_diff(path, SIZE, expected=found)


@pytest.mark.parametrize("position", [0, 1, -48, -47, -40, -32, -28, -24, -16, -15, -8, -7])
def test_damaged_index_is_refused_even_with_a_good_checksum(tmp_path: Path, position: int) -> None:
    path = tmp_path / "memory.diff"
    make_diff(path)
    flip(path, position)
    with pytest.raises(SnapshotRefused, match="the memory's index is damaged"):
        read_diff(path, SIZE, expected=rehashed(path))


@given(noise=st.binary(max_size=200), has_magic=st.booleans())
def test_noise_is_refused_with_words(noise: bytes, has_magic: bool) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "memory.diff"
        path.write_bytes(noise + (struct.pack("<8sIIQQQ", MAGIC, VERSION, PAGE, SIZE, 7, 0) if has_magic else b""))
        with pytest.raises(SnapshotRefused, match="index is damaged"):
            read_diff(path, SIZE, expected=rehashed(path))


def test_counts_beyond_the_file_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "memory.diff"
    path.write_bytes(TRAILER.pack(MAGIC, VERSION, PAGE, SIZE, 1 << 60, 1 << 63).rjust(PAGE, b"\0"))
    with pytest.raises(SnapshotRefused, match="extents do not fit into it"):
        read_diff(path, SIZE, expected=rehashed(path))


@pytest.mark.parametrize("cut", [0, 10, PAGE, -1])
def test_torn_file_is_refused(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "memory.diff"
    found = make_diff(path)
    os.truncate(path, cut if cut >= 0 else found.size_bytes - 1)
    with pytest.raises(SnapshotRefused, match=f"bytes instead of {found.size_bytes}"):
        read_diff(path, SIZE, expected=found)


def test_diff_of_a_machine_of_another_size_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "memory.diff"
    found = make_diff(path)
    with pytest.raises(SnapshotRefused, match=f"of a memory of {SIZE} bytes instead of {2 * SIZE}"):
        read_diff(path, 2 * SIZE, expected=found)


def test_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SnapshotRefused, match="cannot be read"):
        read_diff(tmp_path / "none", SIZE, expected=FileRecord(size_bytes=0, block_hash="0" * 64))


@pytest.mark.parametrize(
    ("extents", "words"),
    [
        ([Extent(1, PAGE)], "not made of pages"),
        ([Extent(0, 100)], "not made of pages"),
        ([Extent(0, 0)], "not made of pages"),
        ([Extent(0, -PAGE)], "not made of pages"),
        ([Extent(-PAGE, PAGE)], "out of order or overlaps"),
        ([Extent(PAGE, PAGE), Extent(0, PAGE)], "out of order"),
        ([Extent(0, 2 * PAGE), Extent(PAGE, PAGE)], "overlaps"),
        ([Extent(SIZE - PAGE, 2 * PAGE)], "behind the memory's end"),
    ],
)
@pytest.mark.parametrize("write", [write_full, write_diff])
def test_impossible_extents_are_refused_before_anything_is_written(
    tmp_path: Path, write: Callable[..., FileRecord], extents: list[Extent], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        check_extents(extents, SIZE)
    with pytest.raises(ValueError, match=words):
        write(tmp_path / "file", SIZE, extents, b"x" * 4 * PAGE)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("write", [write_full, write_diff])
def test_data_shorter_than_its_extents_is_refused(tmp_path: Path, write: Callable[..., FileRecord]) -> None:
    with pytest.raises(ValueError, match="data of 4096 bytes for extents of 8192"):
        write(tmp_path / "file", SIZE, [Extent(0, 2 * PAGE)], b"x" * PAGE)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a file system with room for 1 MiB."""
    libc = ctypes.CDLL(None, use_errno=True)
    point = os.fsencode(tmp_path / "small")
    (tmp_path / "small").mkdir()
    assert libc.mount(b"tmpfs", point, b"tmpfs", ctypes.c_ulong(0), b"size=1m") == 0
    try:
        yield tmp_path / "small"
    finally:
        assert libc.umount(point) == 0


@pytest.mark.root
@pytest.mark.parametrize("write", [write_full, write_diff])
def test_full_disk_is_an_error_in_words_and_leaves_nothing(small_disk: Path, write: Callable[..., FileRecord]) -> None:
    with pytest.raises(NoSpace, match="the disk is full"):
        write(small_disk / "file", SIZE, [Extent(0, SIZE)], random.Random(1).randbytes(SIZE))
    assert list(small_disk.iterdir()) == []


def test_ten_thousand_extents_are_written_and_read_at_once(tmp_path: Path) -> None:
    count = 10_000
    memory_bytes = 2 * count * PAGE
    extents = [Extent(2 * number * PAGE, PAGE) for number in range(count)]
    data = random.Random(5).randbytes(PAGE) * count
    started = time.process_time()
    found = write_diff(tmp_path / "memory.diff", memory_bytes, extents, data)
    with read_diff(tmp_path / "memory.diff", memory_bytes, expected=found) as diff:
        took_s = time.process_time() - started
        assert diff.extents == extents
        assert bytes(diff.data) == data
    assert took_s < 5  # 0.2 s, however busy the machine is


@pytest.mark.parametrize("write", [write_full, write_diff])
def test_memory_read_piece_by_piece_makes_the_same_file(tmp_path: Path, write: Callable[..., FileRecord]) -> None:
    memory_bytes = 6 * WINDOW_BYTES
    chosen = random.Random(9)
    memory = bytearray(memory_bytes)
    memory[PAGE : 2 * WINDOW_BYTES] = chosen.randbytes(PAGE) * (2 * WINDOW_BYTES // PAGE - 1)
    memory[4 * WINDOW_BYTES - PAGE : 4 * WINDOW_BYTES + PAGE] = chosen.randbytes(2 * PAGE)
    extents = [Extent(PAGE, 4 * WINDOW_BYTES - 2 * PAGE), Extent(4 * WINDOW_BYTES - PAGE, WINDOW_BYTES)]
    asked: list[Extent] = []

    def read(part: Sequence[Extent]) -> bytes:
        assert sum(extent.length for extent in part) <= WINDOW_BYTES
        asked.extend(part)
        return b"".join(memory[extent.offset : extent.end] for extent in part)

    streamed = write(tmp_path / "streamed", memory_bytes, extents, read)
    held = write(tmp_path / "held", memory_bytes, extents, b"".join(memory[e.offset : e.end] for e in extents))
    assert streamed == held == record(tmp_path / "streamed")
    assert len(asked) > len(extents)
    assert sum(extent.length for extent in asked) == sum(extent.length for extent in extents)


class Window(bytearray):
    """Bytes that were read and can be watched going."""


@pytest.mark.parametrize("write", [write_full, write_diff])
def test_no_more_than_a_few_windows_are_held_at_a_time(tmp_path: Path, write: Callable[..., FileRecord]) -> None:
    windows: list[ref[Window]] = []
    most = 0
    noise = random.Random(6).randbytes(WINDOW_BYTES)

    def held() -> int:
        return sum(window() is not None for window in windows)

    def read(part: Sequence[Extent]) -> Window:
        nonlocal most
        window = Window(noise)
        windows.append(ref(window))
        most = max(most, held())
        return window

    size = 10 * WINDOW_BYTES
    write(tmp_path / "file", size, [Extent(0, size)], read)
    assert 1 <= most * WINDOW_BYTES <= STREAMED_BYTES
    assert held() == 0


@pytest.mark.parametrize("write", [write_full, write_diff])
def test_memory_that_cannot_be_read_to_its_end_leaves_nothing(tmp_path: Path, write: Callable[..., FileRecord]) -> None:
    def read(part: Sequence[Extent]) -> bytes:
        if part[0].offset:
            raise EngineFailed("the machine is gone")
        return b"x" * WINDOW_BYTES

    with pytest.raises(EngineFailed, match="the machine is gone"):
        write(tmp_path / "file", 5 * WINDOW_BYTES, [Extent(0, 5 * WINDOW_BYTES)], read)
    assert list(tmp_path.iterdir()) == []
