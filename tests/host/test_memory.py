"""Which pages another process has written, and moving them, on real mappings of all kinds."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.host.mapped_child import MappedChild, mapped_child

from hearth.host.memory import (
    Extent,
    read_extents,
    total_bytes,
    write_extents,
    written,
    written_by_pagemap,
    written_by_scan,
)

PAGE = mmap.PAGESIZE
PAGES = 64
SIZE = PAGES * PAGE
HUGE_PAGE = 2 * 1024 * 1024
MEBIBYTE = 1024 * 1024

Look = Callable[[int, int, int], list[Extent]]


def scan_works() -> bool:
    try:
        written_by_scan(os.getpid(), 0, PAGE)
    except OSError as error:
        return error.errno != errno.ENOTTY
    return True


needs_root = pytest.mark.root
needs_scan = pytest.mark.skipif(not scan_works(), reason="the kernel has no PAGEMAP_SCAN (Linux < 6.7)")
both_ways = pytest.mark.parametrize(
    "look", [pytest.param(written_by_scan, marks=needs_scan), written_by_pagemap, written]
)


def pages(*numbers: int) -> list[Extent]:
    return [Extent(number * PAGE, PAGE) for number in numbers]


@contextmanager
def backing(kind: str, size: int, directory: Path) -> Iterator[int]:
    """Give a file of ones with a hole in its second half, or -1 for anonymous memory."""
    if kind == "anonymous":
        yield -1
        return
    if kind == "memfd":
        descriptor = os.memfd_create("test", os.MFD_CLOEXEC)
    else:
        descriptor = os.open(directory / "file", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.ftruncate(descriptor, size)
        os.pwrite(descriptor, b"\1" * (size // 2), 0)
        yield descriptor
    finally:
        os.close(descriptor)


@pytest.fixture(params=["memfd", "anonymous", "file"])
def child(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MappedChild]:
    with backing(request.param, SIZE, tmp_path) as descriptor, mapped_child(SIZE, descriptor) as process:
        yield process


@needs_root
@both_ways
def test_untouched_mapping_has_nothing_written(child: MappedChild, look: Look) -> None:
    assert look(child.pid, child.address, SIZE) == []


@needs_root
@both_ways
def test_pages_only_read_are_not_written(child: MappedChild, look: Look) -> None:
    child.read(range(PAGES))
    child.write([3])
    assert look(child.pid, child.address, SIZE) == pages(3)


@needs_root
@both_ways
def test_neighbours_are_one_extent_and_the_edges_belong(child: MappedChild, look: Look) -> None:
    child.write([0, 1, 2, 40, PAGES - 1])
    expected = [Extent(0, 3 * PAGE), *pages(40, PAGES - 1)]
    assert look(child.pid, child.address, SIZE) == expected


@needs_root
@both_ways
def test_part_of_a_mapping_is_told_relative_to_that_part(child: MappedChild, look: Look) -> None:
    child.write([9, 10, 20, 30])
    assert look(child.pid, child.address + 10 * PAGE, 20 * PAGE) == pages(0, 10)


@needs_root
@both_ways
@pytest.mark.parametrize("touch", ["read", "write"])
def test_huge_pages_are_told_by_what_was_done_to_them(look: Look, touch: str) -> None:
    size = 4 * HUGE_PAGE
    with mapped_child(size, huge=True) as child:
        first = -child.address % HUGE_PAGE // PAGE  # of a whole huge page
        if touch == "write":
            child.write([first])
            found = look(child.pid, child.address, size)
            assert found[0].offset == first * PAGE
            assert total_bytes(found) in (PAGE, HUGE_PAGE)
        else:
            child.read([first])
            assert look(child.pid, child.address, size) == []


@needs_root
@needs_scan
def test_more_regions_than_one_scan_returns_are_all_found(tmp_path: Path) -> None:
    count = 50_000
    size = 2 * count * PAGE
    with mapped_child(size) as child:
        child.write(range(0, 2 * count, 2))
        assert written_by_scan(child.pid, child.address, size) == pages(*range(0, 2 * count, 2))


@needs_root
@both_ways
def test_process_that_is_gone_is_an_error(look: Look) -> None:
    with mapped_child(SIZE) as child:
        pid, address = child.pid, child.address
    with pytest.raises(OSError):
        look(pid, address, SIZE)


@needs_root
def test_range_that_is_not_all_mapped_is_an_error_and_not_unwritten() -> None:
    with mapped_child(SIZE) as child:
        for address, length in ((0, PAGE), (child.address, 1 << 46), ((1 << 47) - SIZE, PAGE)):
            with pytest.raises(OSError, match="not mapped privately"):
                written(child.pid, address, length)


def test_shared_mapping_is_an_error_and_not_unwritten() -> None:
    with mmap.mmap(-1, SIZE, flags=mmap.MAP_SHARED | mmap.MAP_ANONYMOUS) as memory:
        memory[0] = 1
        first = ctypes.c_char.from_buffer(memory)
        address = ctypes.addressof(first)
        del first
        with pytest.raises(OSError, match="not mapped privately"):
            written(os.getpid(), address, SIZE)


@needs_root
def test_extents_are_read_and_written_in_their_order(child: MappedChild) -> None:
    child.fill(5, 4, 2)
    child.fill(6, 20, 1)
    extents = [Extent(20 * PAGE, PAGE), Extent(4 * PAGE, 2 * PAGE)]
    with read_extents(child.pid, child.address, extents) as data:
        assert data[:] == b"\6" * PAGE + b"\5" * 2 * PAGE
    write_extents(child.pid, child.address, extents, b"a" * PAGE + b"b" * 2 * PAGE)
    with read_extents(child.pid, child.address, [Extent(3 * PAGE, 4 * PAGE), Extent(20 * PAGE, PAGE)]) as data:
        assert data[PAGE : 3 * PAGE] == b"b" * 2 * PAGE
        assert data[4 * PAGE :] == b"a" * PAGE
        assert data[:PAGE] != b"b" * PAGE != data[3 * PAGE : 4 * PAGE]


@needs_root
def test_ten_thousand_extents_make_the_round_in_order() -> None:
    count = 10_000
    extents = pages(*range(0, 2 * count, 2))
    order = random.Random(4)
    payload = b"".join(order.randbytes(16) * (PAGE // 16) for _ in extents)
    with mapped_child(2 * count * PAGE) as child:
        write_extents(child.pid, child.address, extents, payload)
        assert written(child.pid, child.address, 2 * count * PAGE) == extents
        with read_extents(child.pid, child.address, extents) as data:
            assert data[:] == payload


@needs_root
@pytest.mark.parametrize("kind", [bytes, bytearray, lambda data: memoryview(bytearray(data))])
def test_every_kind_of_buffer_can_be_written(kind: Callable[[bytes], bytes | bytearray | memoryview]) -> None:
    with mapped_child(SIZE) as child:
        write_extents(child.pid, child.address, pages(5), kind(b"x" * PAGE))
        with read_extents(child.pid, child.address, pages(5)) as data:
            assert data[:] == b"x" * PAGE


@needs_root
def test_nothing_to_move_is_fine() -> None:
    with mapped_child(SIZE) as child:
        write_extents(child.pid, child.address, [], b"")
        read_extents(child.pid, child.address, []).close()


def test_buffer_shorter_than_its_extents_is_refused_before_anything_moves() -> None:
    with mapped_child(SIZE) as child:
        with pytest.raises(ValueError, match="a buffer of 1 bytes for extents of 8192"):
            write_extents(child.pid, child.address, pages(0, 1), b"x")
        assert written(child.pid, child.address, SIZE) == []


@needs_root
def test_extent_outside_of_the_mapping_is_an_error() -> None:
    with mapped_child(SIZE) as child:
        with pytest.raises(OSError, match="memory of process"):
            read_extents(child.pid, 0, pages(1))
        child.protect()
        with pytest.raises(OSError, match="memory of process"):
            write_extents(child.pid, child.address, pages(1), b"x" * PAGE)


@needs_root
def test_transfer_that_stops_in_the_middle_is_an_error() -> None:
    size = 2 * SIZE
    with mapped_child(size) as child, pytest.raises(OSError, match="memory of process"):
        # The first extent moves; where the second should be there is no user's memory at all.
        read_extents(child.pid, child.address, [Extent(0, PAGE), Extent(1 << 62, PAGE)])


@needs_root
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(touched=st.dictionaries(st.integers(0, PAGES - 1), st.integers(0, 255), max_size=PAGES))
def test_clone_given_what_another_wrote_has_the_same_memory(touched: dict[int, int]) -> None:
    everything = [Extent(0, SIZE)]
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        descriptor = stack.enter_context(backing("memfd", SIZE, directory))
        first = stack.enter_context(mapped_child(SIZE, descriptor))
        second = stack.enter_context(mapped_child(SIZE, descriptor))
        for page, value in touched.items():
            first.fill(value, page, 1)
        extents = written(first.pid, first.address, SIZE)
        assert total_bytes(extents) == len(touched) * PAGE
        data = stack.enter_context(read_extents(first.pid, first.address, extents))
        write_extents(second.pid, second.address, extents, data)
        assert written(second.pid, second.address, SIZE) == extents
        one = stack.enter_context(read_extents(first.pid, first.address, everything))
        other = stack.enter_context(read_extents(second.pid, second.address, everything))
        assert one[:] == other[:]


@needs_root
@needs_scan
def test_both_ways_tell_the_same_of_a_busy_mapping(tmp_path: Path) -> None:
    size = 16 * MEBIBYTE
    chosen = random.Random(8)
    with backing("memfd", size, tmp_path) as descriptor, mapped_child(size, descriptor) as child:
        child.read(range(0, size // PAGE, 3))
        touched = sorted(chosen.sample(range(size // PAGE), 1000))
        child.write(touched)
        found = written_by_scan(child.pid, child.address, size)
        assert found == written_by_pagemap(child.pid, child.address, size)
        assert total_bytes(found) == 1000 * PAGE


@needs_root
@needs_scan
def test_scan_of_a_gibibyte_takes_milliseconds() -> None:
    size = 1024 * MEBIBYTE
    with mapped_child(size) as child:
        child.write(range(0, size // PAGE, 97))
        took_s = []
        for _ in range(3):
            started = time.process_time()
            found = written(child.pid, child.address, size)
            took_s.append(time.process_time() - started)
            assert len(found) == len(range(0, size // PAGE, 97))
        assert min(took_s) < 0.5  # 1 to 30 ms, however busy the machine is
