"""A volume that gives back something else than it was given is refused, wherever that is."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from tests.contract.test_golden_backends import make_image

from hearth.volume.golden.base import GoldenImage, PopulateFailed, Target, TargetSpec
from hearth.volume.golden.file import FileGoldenVolumes
from hearth.volume.golden.growing import opened_disk
from hearth.volume.golden.populate import populate
from hearth.volume.golden.verifying import verify

MIB = 1 << 20
DISK_MIB, VOLUME_MIB = 16, 24
DATA = b"".join(hashlib.sha256(b"%d" % number).digest() * 1024 for number in range(64))


@pytest.fixture(params=["qcow2", "raw"])
def image(request: pytest.FixtureRequest, tmp_path: Path) -> GoldenImage:
    return make_image(tmp_path, request.param, DATA)


@pytest.fixture
def volumes(tmp_path: Path) -> FileGoldenVolumes:
    made = FileGoldenVolumes(tmp_path / "golden")
    made.prepare()
    return made


async def filled(volumes: FileGoldenVolumes, image: GoldenImage) -> Target:
    target = await volumes.create(TargetSpec(name="vm", size_bytes=VOLUME_MIB * MIB, job="job"), image)
    await populate(image, target, lambda *_: None)
    return target


async def test_a_copy_and_a_clone_are_read_again_to_their_end(volumes: FileGoldenVolumes, image: GoldenImage) -> None:
    told: list[tuple[int, int]] = []
    target = await filled(volumes, image)
    async with opened_disk(target.path, "raw", VOLUME_MIB * MIB) as disk:
        await verify(image, disk, lambda done, total: told.append((done, total)))
    assert (told[0], told[-1]) == ((0, VOLUME_MIB * MIB), (VOLUME_MIB * MIB, VOLUME_MIB * MIB))
    clone = await volumes.clone(TargetSpec(name="clone", size_bytes=VOLUME_MIB * MIB, job="job"), image)
    base = image.path if clone.format == "qcow2" else None
    async with opened_disk(clone.path, clone.format, VOLUME_MIB * MIB, base, image.format) as disk:
        await verify(image, disk, lambda *_: None)
    for made in (target, clone):
        await volumes.discard(made)


@pytest.mark.parametrize("at", [0, 3, DISK_MIB * MIB - 1, DISK_MIB * MIB + 5, VOLUME_MIB * MIB - 1])
async def test_a_byte_that_flipped_between_writing_and_reading_is_seen(
    volumes: FileGoldenVolumes, image: GoldenImage, at: int
) -> None:
    target = await filled(volumes, image)
    places = [at]

    def flip(_done: int, _total: int) -> None:
        while places:
            corrupt(target.path, places.pop())

    async with opened_disk(target.path, "raw", VOLUME_MIB * MIB) as disk:
        with pytest.raises(PopulateFailed, match="does not hold what its image does"):
            await verify(image, disk, flip)
    await volumes.discard(target)


def corrupt(path: Path, at: int) -> None:
    """Flip a bit, and have it on disk."""
    with path.open("r+b", buffering=0) as file:
        was = os.pread(file.fileno(), 1, at)
        os.pwrite(file.fileno(), bytes([was[0] ^ 1]), at)
        os.fsync(file.fileno())
