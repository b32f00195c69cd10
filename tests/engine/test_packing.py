"""Chunks of pages, packed and unpacked, whole and damaged."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hearth.engine.packing import CHUNK_BYTES, LENGTH, packed, unpacked

NOISE = random.Random(7).randbytes(CHUNK_BYTES)


def pack(*rows: bytes) -> bytes:
    return b"".join(packed([memoryview(row) for row in rows]))


def unpack(content: bytes, size: int) -> bytes:
    with unpacked(memoryview(content), size) as found:
        return found[:size]


@settings(deadline=None, max_examples=60)
@given(
    rows=st.lists(
        st.builds(
            lambda size, is_noise: (NOISE * 4)[:size] if is_noise else b"hearth " * (size // 7),
            st.integers(0, 3 * CHUNK_BYTES),
            st.booleans(),
        ),
        max_size=5,
    )
)
def test_what_was_packed_comes_back(rows: list[bytes]) -> None:
    whole = b"".join(rows)
    assert unpack(pack(*rows), len(whole)) == whole


def test_nothing_takes_nothing() -> None:
    assert pack() == b""
    assert unpack(b"", 0) == b""


def test_rows_are_cut_wherever_a_chunk_ends() -> None:
    rows = [NOISE[: CHUNK_BYTES - 1], NOISE[:2], NOISE]
    content = pack(*rows)
    assert unpack(content, 2 * CHUNK_BYTES + 1) == b"".join(rows)
    (first,) = LENGTH.unpack_from(content)
    assert CHUNK_BYTES <= first < CHUNK_BYTES * 1.01  # noise does not grow by more than its frame's head


def test_a_text_takes_a_fraction() -> None:
    assert len(pack(b"the same words again and again\n" * 100_000)) < 100_000


@pytest.mark.parametrize("cut", [1, LENGTH.size, LENGTH.size + 1, -1])
def test_a_part_is_refused(cut: int) -> None:
    content = pack(NOISE, b"x" * 100)
    with pytest.raises(ValueError, match=r"chunk"):
        unpack(content[:cut], CHUNK_BYTES + 100)


def test_more_than_there_should_be_is_refused() -> None:
    with pytest.raises(ValueError, match="1 bytes follow the last chunk"):
        unpack(pack(b"abc") + b"x", 3)


@pytest.mark.parametrize(("size", "words"), [(2, "more than 2 bytes"), (4, "3 bytes instead of 4")])
def test_a_chunk_of_another_size_is_refused(size: int, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        unpack(pack(b"abc"), size)


def test_a_chunk_that_is_no_frame_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot be unpacked"):
        unpack(LENGTH.pack(20) + b"n" * 20, 3)


def test_a_chunk_that_would_fill_the_memory_is_read_no_further_than_its_place() -> None:
    bomb = pack(bytes(CHUNK_BYTES))
    assert len(bomb) < 1000
    with pytest.raises(ValueError, match="more than 10 bytes"):
        unpack(bomb, 10)


def test_who_stops_taking_leaves_nobody_working() -> None:
    frames = packed([memoryview(NOISE)] * 64)
    next(frames)
    frames.close()  # the leak checks count the threads
