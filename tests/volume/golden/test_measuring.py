"""What an image takes of a sparse storage, counted in that storage's blocks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tests.contract.test_golden_backends import DISK_MIB, MIB, make_image

from hearth.volume.golden.measuring import bytes_taken

OVERHEAD_BLOCKS = 6
"""Of the qcow2 file that is counted with."""


@pytest.mark.parametrize("image_format", ["raw", "qcow2"])
async def test_holes_take_nothing_and_scattered_data_whole_blocks(tmp_path: Path, image_format: str) -> None:
    piece = b"data" * 1024
    image = make_image(tmp_path, image_format, b"".join(piece + bytes(2 * MIB - len(piece)) for _ in range(4)))
    for block_bytes in (64 * 1024, 512 * 1024):
        taken = await bytes_taken(image, block_bytes)
        assert 4 * block_bytes <= taken <= (4 + OVERHEAD_BLOCKS) * block_bytes


async def test_a_full_image_takes_its_disk_and_no_more(tmp_path: Path) -> None:
    image = make_image(tmp_path, "raw", b"image" * (DISK_MIB * MIB // 5))
    assert await bytes_taken(image, 64 * 1024) == DISK_MIB * MIB


@pytest.mark.parametrize("block_bytes", [0, 100, 192 * 1024, 4 * MIB])
async def test_what_cannot_be_counted_in_takes_the_whole_disk(tmp_path: Path, block_bytes: int) -> None:
    image = make_image(tmp_path, "raw", b"")
    assert await bytes_taken(image, block_bytes) == DISK_MIB * MIB


async def test_an_image_that_cannot_be_read_takes_the_whole_disk(tmp_path: Path) -> None:
    image = replace(make_image(tmp_path, "raw", b"no qcow2"), format="qcow2")
    assert await bytes_taken(image, 64 * 1024) == DISK_MIB * MIB
