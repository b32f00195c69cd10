"""One checksum, however the bytes come: at once, in parts, with holes, by several threads."""

from __future__ import annotations

import hashlib
import os
import random
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hearth.host.block_hash import BLOCK_BYTES, BlockHash, each_block, hash_blocks, read_block

SIZES = [0, 1, 4096, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, 9 * BLOCK_BYTES, 9 * BLOCK_BYTES + 4096]


def by_definition(data: bytes) -> str:
    blocks = [data[start : start + BLOCK_BYTES] for start in range(0, len(data), BLOCK_BYTES)]
    return hashlib.sha256(b"".join(hashlib.sha256(block).digest() for block in blocks)).hexdigest()


def hash_of(path: Path) -> str:
    with path.open("rb") as file:
        return hash_blocks(file.fileno())


@pytest.mark.parametrize("size", SIZES)
def test_file_of_data_has_the_defined_checksum(tmp_path: Path, size: int) -> None:
    data = random.Random(size).randbytes(size)
    (tmp_path / "file").write_bytes(data)
    assert hash_of(tmp_path / "file") == by_definition(data)


@pytest.mark.parametrize("size", SIZES)
def test_hole_has_the_checksum_of_zeros(tmp_path: Path, size: int) -> None:
    path = tmp_path / "file"
    path.touch()
    os.truncate(path, size)
    assert hash_of(path) == by_definition(bytes(size))


def test_holes_between_data_make_no_difference(tmp_path: Path) -> None:
    data = bytearray(12 * BLOCK_BYTES + 77)
    for start in (0, 3 * BLOCK_BYTES - 4096, 5 * BLOCK_BYTES + 8192, 12 * BLOCK_BYTES):
        data[start : start + 50] = random.Random(start).randbytes(50)
    sparse = tmp_path / "sparse"
    with sparse.open("wb") as file:
        for start in (0, 3 * BLOCK_BYTES - 4096, 5 * BLOCK_BYTES + 8192, 12 * BLOCK_BYTES):
            file.seek(start)
            file.write(data[start : start + 50])
        file.truncate(len(data))
    assert hash_of(sparse) == by_definition(bytes(data))


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 3 * BLOCK_BYTES // 2)), max_size=5))
def test_parts_add_up_to_the_whole(parts: list[tuple[bool, int]]) -> None:
    growing = BlockHash()
    whole = b""
    for is_zero, size in parts:
        part = bytes(size) if is_zero else b"x" * size
        whole += part
        if is_zero:
            growing.update_zeros(size)
        else:
            growing.update(part)
    assert growing.hexdigest() == by_definition(whole)


def test_every_byte_counts() -> None:
    data = bytearray(2 * BLOCK_BYTES + 5)
    seen = set()
    for position in (None, 0, BLOCK_BYTES - 1, BLOCK_BYTES, 2 * BLOCK_BYTES + 4):
        changed = bytearray(data)
        if position is not None:
            changed[position] ^= 1
        growing = BlockHash()
        growing.update(changed)
        seen.add(growing.hexdigest())
    assert len(seen) == 5


def test_file_that_became_shorter_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 100)
    with path.open("rb") as file, pytest.raises(EOFError, match="ends after 100 bytes instead of 200"):
        read_block(file.fileno(), 0, 200, memoryview(bytearray(BLOCK_BYTES)))


def test_each_block_is_done_once_and_the_first_error_ends_the_work() -> None:
    done: list[int] = []
    each_block(range(1000), lambda number, _: done.append(number))
    assert sorted(done) == list(range(1000))

    begun: list[int] = []
    failed = threading.Event()

    def fail_at_three(number: int, _: memoryview) -> None:
        begun.append(number)
        if number == 3:
            failed.set()
            raise RuntimeError("no")
        if number > 3:
            failed.wait(60)

    with pytest.raises(RuntimeError, match="no"):
        each_block(range(1000), fail_at_three)
    assert len(begun) < 1000
