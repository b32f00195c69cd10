"""Memory leaves for a real swap file and comes back; a host without one is told in words."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from tests.host.mapped_child import MappedChild, mapped_child

from hearth.host.memory import Extent, read_extents, written, written_by_pagemap
from hearth.host.reclaim import NO_SWAP, MemoryRange, memory_use, page_out, page_out_obstacle, swap_free_bytes

MEBIBYTE = 1024 * 1024
SIZE = 32 * MEBIBYTE
PAGES = SIZE // 4096

needs_no_swap = pytest.mark.skipif(page_out_obstacle() != NO_SWAP, reason="the host has swap")
libc = ctypes.CDLL(None, use_errno=True)


@contextmanager
def pidfd_of(pid: int) -> Iterator[int]:
    descriptor = os.pidfd_open(pid)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@pytest.fixture
def swap(tmp_path: Path) -> Iterator[None]:
    """Give the host 64 MiB of swap for the length of a test."""
    file = tmp_path / "swap"
    with file.open("wb") as opened:
        os.posix_fallocate(opened.fileno(), 0, 64 * MEBIBYTE)
    file.chmod(0o600)
    subprocess.run(["mkswap", "-q", str(file)], check=True)
    # A priority above all: what is paged out goes here, not to a disk of the host's.
    if libc.swapon(os.fsencode(file), 0x8000 | 0x7FFF) != 0:
        pytest.skip(f"swapon does not work here: {os.strerror(ctypes.get_errno())}")
    try:
        yield
    finally:
        assert libc.swapoff(os.fsencode(file)) == 0


@pytest.fixture
def child() -> Iterator[MappedChild]:
    with mapped_child(SIZE) as process:
        process.fill(3, 0, PAGES)
        yield process


@pytest.mark.root
def test_pages_leave_for_swap_and_return_as_they_were(swap: None, child: MappedChild) -> None:
    before = memory_use(child.pid)
    free_before = swap_free_bytes()
    assert page_out_obstacle() is None
    with pidfd_of(child.pid) as descriptor:
        result = page_out(descriptor, [MemoryRange(child.address, SIZE)])
    assert result == (SIZE, None)
    cold = memory_use(child.pid)
    assert cold.swapped_bytes >= SIZE * 9 // 10
    assert cold.private_bytes <= before.private_bytes - SIZE * 9 // 10
    assert cold.anonymous_bytes <= before.anonymous_bytes - SIZE * 9 // 10
    assert free_before - swap_free_bytes() >= SIZE * 9 // 10
    child.read(range(PAGES))
    assert memory_use(child.pid).swapped_bytes == 0
    with read_extents(child.pid, child.address, [Extent(0, SIZE)]) as data:
        assert data[:] == b"\3" * SIZE


@pytest.mark.root
@pytest.mark.parametrize("look", [written, written_by_pagemap])
@pytest.mark.parametrize("kind", ["anonymous", "memfd"])
def test_swapped_pages_still_count_as_written(
    swap: None, look: Callable[[int, int, int], list[Extent]], kind: str
) -> None:
    with ExitStack() as stack:
        descriptor = -1
        if kind == "memfd":
            descriptor = os.memfd_create("test", os.MFD_CLOEXEC)
            stack.callback(os.close, descriptor)
            os.pwrite(descriptor, b"\1" * SIZE, 0)
        child = stack.enter_context(mapped_child(SIZE, descriptor))
        child.read(range(PAGES))
        child.fill(3, 100, 1000)
        pidfd = stack.enter_context(pidfd_of(child.pid))
        assert page_out(pidfd, [MemoryRange(child.address, SIZE)]) == (SIZE, None)
        assert memory_use(child.pid).swapped_bytes >= 900 * 4096
        assert look(child.pid, child.address, SIZE) == [Extent(100 * 4096, 1000 * 4096)]


@pytest.mark.root
def test_many_small_ranges_are_all_advised(swap: None, child: MappedChild) -> None:
    ranges = [MemoryRange(child.address + page * 4096, 4096) for page in range(0, PAGES, 2)]
    with pidfd_of(child.pid) as descriptor:
        assert page_out(descriptor, ranges) == (SIZE // 2, None)
    assert memory_use(child.pid).swapped_bytes >= SIZE // 2 * 9 // 10


@pytest.mark.root
def test_range_that_is_not_mapped_is_said_so(swap: None, child: MappedChild) -> None:
    with pidfd_of(child.pid) as descriptor:
        result = page_out(descriptor, [MemoryRange(4096, 4096)])
    assert result.advised_bytes == 0
    assert result.obstacle is not None
    assert "the kernel refuses" in result.obstacle


@pytest.mark.root
def test_process_that_has_ended_is_an_error(swap: None) -> None:
    with ExitStack() as stack:
        with mapped_child(SIZE) as child:
            descriptor = stack.enter_context(pidfd_of(child.pid))
        with pytest.raises(ProcessLookupError):
            page_out(descriptor, [MemoryRange(child.address, SIZE)])


@pytest.mark.root
@needs_no_swap
def test_host_without_swap_is_said_so(child: MappedChild) -> None:
    with pidfd_of(child.pid) as descriptor:
        assert page_out(descriptor, [MemoryRange(child.address, SIZE)]) == (0, NO_SWAP)
    assert swap_free_bytes() == 0


@pytest.mark.root
def test_written_pages_are_anonymous_and_pages_of_two_are_shared() -> None:
    descriptor = os.memfd_create("test", os.MFD_CLOEXEC)
    try:
        os.pwrite(descriptor, b"\1" * SIZE, 0)
        with mapped_child(SIZE, descriptor) as one, mapped_child(SIZE, descriptor) as other:
            before = memory_use(one.pid)
            one.read(range(PAGES))
            other.read(range(PAGES))
            assert memory_use(one.pid).shared_bytes - before.shared_bytes >= SIZE
            one.fill(2, 0, PAGES // 2)
            use = memory_use(one.pid)
            assert use.anonymous_bytes - before.anonymous_bytes >= SIZE // 2
            assert use.private_bytes - before.private_bytes >= SIZE // 2
    finally:
        os.close(descriptor)


def test_use_of_a_process_that_is_gone_is_an_error() -> None:
    with subprocess.Popen([sys.executable, "-S", "-c", "pass"]) as process:
        process.wait()
    with pytest.raises(OSError):
        memory_use(process.pid)
