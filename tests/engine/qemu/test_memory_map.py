"""Where a VMM says the guest's memory is, and what the kernel says lies there."""

from __future__ import annotations

import ctypes
import mmap
import os

import pytest

from hearth.engine.qemu.memory_map import NAME_PREFIX, guest_memory
from hearth.errors import EngineFailed

SIZE = 4 * mmap.PAGESIZE


def mapped(descriptor: int) -> tuple[mmap.mmap, int]:
    memory = mmap.mmap(descriptor, SIZE, flags=mmap.MAP_PRIVATE | (mmap.MAP_ANONYMOUS if descriptor < 0 else 0))
    return memory, ctypes.addressof(ctypes.c_char.from_buffer(memory))


def test_a_mapping_tells_the_snapshot_it_is_a_copy_of() -> None:
    descriptor = os.memfd_create(NAME_PREFIX + "tpl-0123")
    os.ftruncate(descriptor, SIZE)
    _, address = mapped(descriptor)
    os.close(descriptor)

    found = guest_memory(os.getpid(), address)

    assert (found.address, found.length, found.base) == (address, SIZE, "tpl-0123")


def test_memory_of_its_own_and_a_file_of_another_name_are_no_copies() -> None:
    _, address = mapped(-1)
    assert guest_memory(os.getpid(), address).base is None
    descriptor = os.memfd_create("tpl-0123")
    os.ftruncate(descriptor, SIZE)
    _, address = mapped(descriptor)
    os.close(descriptor)
    assert guest_memory(os.getpid(), address).base is None


def test_where_nothing_is_mapped_is_an_error() -> None:
    with pytest.raises(EngineFailed, match="where it says"):
        guest_memory(os.getpid(), 0)


def test_a_process_that_is_gone_is_told() -> None:
    with pytest.raises(OSError):
        guest_memory(2**22 + 1, 0)
