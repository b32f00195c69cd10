"""The ring against the plainest model of it, and its speed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytest_benchmark.fixture import BenchmarkFixture

from hearth.agent.ring import Ring

CAPACITY = 16


@given(st.lists(st.binary(max_size=40), max_size=30), st.integers(min_value=0, max_value=CAPACITY))
def test_it_holds_the_last_bytes_written(writes: list[bytes], back: int) -> None:
    ring = Ring(CAPACITY)
    for data in writes:
        ring.write(data)
    whole = b"".join(writes)
    assert ring.end == len(whole)
    assert ring.start == max(0, len(whole) - CAPACITY)
    assert ring.read_from(ring.start) == whole[-CAPACITY:]
    position = max(ring.start, ring.end - back)
    assert ring.read_from(position) == whole[position:]


@pytest.mark.parametrize("position", [3, 20 + 1])
def test_a_position_it_does_not_hold_is_refused(position: int) -> None:
    ring = Ring(CAPACITY)
    ring.write(bytes(20))
    with pytest.raises(IndexError, match=r"outside 4\.\.20"):
        ring.read_from(position)


def test_a_released_ring_counts_on_and_holds_nothing() -> None:
    ring = Ring(CAPACITY)
    ring.write(bytes(20))
    ring.release()
    ring.write(bytes(5))
    assert (ring.start, ring.end, ring.read_from(25)) == (25, 25, b"")
    with pytest.raises(IndexError):
        ring.read_from(24)


def test_writing_4_kib_pieces_is_fast(benchmark: BenchmarkFixture) -> None:
    ring, piece = Ring(65_536), bytes(4096)
    benchmark(ring.write, piece)
    assert ring.end % 4096 == 0


def test_replaying_a_full_ring_is_fast(benchmark: BenchmarkFixture) -> None:
    ring = Ring(65_536)
    ring.write(bytes(100_000))
    assert len(benchmark(ring.read_from, ring.start)) == 65_536
