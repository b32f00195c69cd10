"""Nobody changes a sealed copy: tried by a process that has its descriptor and opens it anew as another user."""

from __future__ import annotations

import errno
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.host.mapped_child import mapped_child

from hearth.host.block_hash import BLOCK_BYTES, hash_blocks
from hearth.host.files import opened
from hearth.host.memory import Extent, read_extents
from hearth.host.sealed import ContentDamaged, sealed_copy

SIZE = 16 * BLOCK_BYTES
NOBODY = 65534
AS_NOBODY = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--no-new-privs"]
ATTACKS = """
import errno, fcntl, mmap, os, sys
given = int(sys.argv[1])
size = os.fstat(given).st_size
PUNCH, KEEP = 2, 1

def copy_privately(descriptor):
    with mmap.mmap(descriptor, size, flags=mmap.MAP_PRIVATE) as memory:
        memory[0] = 99
        return memory[0] == 99

def attempt(attack):
    try:
        return "done" if attack() is not False else "no"
    except OSError as error:
        return errno.errorcode[error.errno]
    except ValueError:
        return "EINVAL"

import ctypes
libc = ctypes.CDLL(None, use_errno=True)
def punch(descriptor):
    if libc.fallocate(descriptor, PUNCH | KEEP, ctypes.c_long(0), ctypes.c_long(4096)) != 0:
        raise OSError(ctypes.get_errno(), "fallocate")

def shared_later(descriptor):
    libc.mmap.restype = ctypes.c_void_p
    read_only = libc.mmap(None, ctypes.c_size_t(4096), 1, 1, descriptor, ctypes.c_long(0))
    if libc.mprotect(ctypes.c_void_p(read_only), ctypes.c_size_t(4096), 3) != 0:
        raise OSError(ctypes.get_errno(), "mprotect")

for descriptor in (given, os.open(f"/proc/self/fd/{given}", os.O_RDWR)):
    print(os.geteuid(), *(attempt(attack) for attack in (
        lambda: copy_privately(descriptor),
        lambda: os.pwrite(descriptor, b"x", 0),
        lambda: os.ftruncate(descriptor, 0),
        lambda: os.ftruncate(descriptor, size + 4096),
        lambda: mmap.mmap(descriptor, size, flags=mmap.MAP_SHARED),
        lambda: punch(descriptor),
        lambda: shared_later(descriptor),
        lambda: fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, 0),
    )))
"""


@contextmanager
def sealed(path: Path, size: int = SIZE, block_hash: str | None = None) -> Iterator[int]:
    with opened(path) as source:
        descriptor = sealed_copy("ram", source, size, block_hash=block_hash)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@pytest.fixture
def memory(tmp_path: Path) -> Path:
    """A sparse file of ``SIZE`` bytes: data at both ends and in the middle, holes between."""
    path = tmp_path / "memory"
    chosen = random.Random(1)
    with path.open("wb") as file:
        file.truncate(SIZE)
        for start in (0, 5 * BLOCK_BYTES + 4096, SIZE - 4096):
            file.seek(start)
            file.write(chosen.randbytes(4096))
    return path


def test_copy_has_the_same_bytes_and_the_same_holes(memory: Path) -> None:
    with opened(memory) as source:
        checksum = hash_blocks(source)
    with sealed(memory, block_hash=checksum) as descriptor:
        assert os.pread(descriptor, SIZE, 0) == memory.read_bytes()
        assert hash_blocks(descriptor) == checksum
        assert os.fstat(descriptor).st_blocks * 512 <= 3 * BLOCK_BYTES
        assert not os.get_inheritable(descriptor)


def test_copy_of_a_file_of_one_hole_is_one_hole(tmp_path: Path) -> None:
    (tmp_path / "memory").touch()
    os.truncate(tmp_path / "memory", SIZE)
    with sealed(tmp_path / "memory") as descriptor:
        assert os.fstat(descriptor).st_size == SIZE
        assert os.fstat(descriptor).st_blocks == 0


@pytest.mark.root
def test_another_user_with_the_descriptor_changes_only_a_copy_of_his_own(memory: Path) -> None:
    before = memory.read_bytes()
    with sealed(memory) as descriptor:
        done = subprocess.run(
            [*AS_NOBODY, sys.executable, "-S", "-c", ATTACKS, str(descriptor)],
            pass_fds=[descriptor],
            capture_output=True,
            text=True,
            check=True,
        )
        refused = "done EPERM EPERM EPERM EPERM EPERM EACCES EPERM"
        assert done.stdout.splitlines() == [f"{NOBODY} {refused}"] * 2
        assert os.pread(descriptor, SIZE, 0) == before


@pytest.mark.root
def test_what_one_process_writes_no_other_sees(memory: Path) -> None:
    first_page = [Extent(0, 4096)]
    with sealed(memory) as descriptor, mapped_child(SIZE, descriptor) as one, mapped_child(SIZE, descriptor) as other:
        one.fill(9, 0, 1)
        with read_extents(one.pid, one.address, first_page) as data:
            assert data[:] == b"\x09" * 4096
        with read_extents(other.pid, other.address, first_page) as data:
            assert data[:] == memory.read_bytes()[:4096]


def test_flipped_bit_is_refused(memory: Path) -> None:
    with opened(memory) as source:
        checksum = hash_blocks(source)
    with memory.open("r+b") as file:
        file.seek(5 * BLOCK_BYTES + 5000)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 4]))
    with pytest.raises(ContentDamaged, match="wrong checksum"), sealed(memory, block_hash=checksum):
        pass


@pytest.mark.parametrize("size", [SIZE - 4096, SIZE + 4096])
def test_file_of_another_size_is_refused(memory: Path, size: int) -> None:
    os.truncate(memory, size)
    with pytest.raises(ContentDamaged, match=f"{size} bytes instead of {SIZE}"), sealed(memory):
        pass


def test_unreadable_source_is_an_error(memory: Path) -> None:
    descriptor = os.open(memory, os.O_WRONLY | os.O_CLOEXEC)
    try:
        with pytest.raises(OSError) as caught:
            sealed_copy("ram", descriptor, SIZE, block_hash=None)
        assert caught.value.errno == errno.EBADF
    finally:
        os.close(descriptor)
