"""A part holds what it was given, whichever way it was written, and knows it again later."""

from __future__ import annotations

import hashlib
import os
import random
from pathlib import Path

import pytest

from hearth.bench.processes import TMPFS
from hearth.image.golden.part import DIRECT_MIN_BYTES, Origin, Part, checksum

CHUNK = DIRECT_MIN_BYTES
DATA = os.urandom(5 * CHUNK + 12_345)
ORIGIN = Origin(identity="x", validator='"1"', version=None, size_bytes=len(DATA), chunk_bytes=CHUNK)


def chunk(index: int) -> list[memoryview]:
    """The bytes of a chunk in pieces of all sizes."""
    left, pieces = memoryview(DATA)[index * CHUNK : (index + 1) * CHUNK], []
    while left:
        size = random.choice((1, 511, 4096, 100_000, CHUNK))
        pieces.append(left[:size])
        left = left[size:]
    return pieces


@pytest.mark.parametrize("in_memory", [False, True], ids=["disk", "tmpfs"])
def test_chunks_written_past_the_page_cache_and_through_it_are_one_file(tmp_path: Path, in_memory: bool) -> None:
    if in_memory and not os.access(TMPFS, os.W_OK):
        pytest.skip("there is no tmpfs")
    stem = TMPFS / f"hearth-part-{os.getpid()}" if in_memory else tmp_path / "part"
    part = Part(stem, ORIGIN)
    try:
        assert part.open() == {}
        for index in (3, 0, 5, 1, 4, 2):
            part.store(index, chunk(index), is_read_soon=index % 2 == 1)
            assert part.load(index) == b"".join(chunk(index))
        part.sync()
        part.close()
        assert part.path.read_bytes() == DATA
    finally:
        part.close()
        part.remove()
    assert not part.path.exists()
    assert not part.journal_path.exists()


def test_a_part_knows_its_chunks_by_either_mark_and_ignores_what_is_none(tmp_path: Path) -> None:
    part = Part(tmp_path / "part", ORIGIN)
    part.open()
    upto = hashlib.sha256(DATA[:CHUNK]).hexdigest()
    part.note(0, upto)
    part.note(2, checksum(chunk(2)))
    part.close()
    with part.journal_path.open("ab") as journal:
        journal.write(b"1 abc\n3 " + b"0" * 63 + b"\n999 00000000\n4 0000")
    assert part.open() == {0: upto, 2: checksum(chunk(2))}
    part.close()
    of_another = Part(tmp_path / "part", Origin(**{**_fields(), "validator": '"2"'}))  # type: ignore[arg-type]
    assert of_another.open() == {}
    of_another.close()


def _fields() -> dict[str, object]:
    return {name: getattr(ORIGIN, name) for name in ORIGIN.__struct_fields__}
