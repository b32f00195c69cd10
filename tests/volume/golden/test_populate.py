"""Writing images onto targets: all of it, to the end, on the disk; or an error that says what is wrong."""

from __future__ import annotations

import asyncio
import os
import subprocess
import threading
from pathlib import Path

import pytest
from tests.contract.test_golden_backends import DATA, DISK_MIB, MIB, VOLUME_MIB, expected, ignore, make_image, spec
from tests.provisioning.held import tools_of
from tests.volume.conftest import small_file_system
from tests.volume.golden.groups import loop_device

from hearth.errors import InvalidInput, NoSpace
from hearth.volume.golden.base import GoldenImage, PopulateFailed, Target
from hearth.volume.golden.populate import convert_words, populate, prove_zero, size_of, zero


@pytest.fixture
def image(tmp_path: Path) -> GoldenImage:
    return make_image(tmp_path, "qcow2", DATA)


def target_at(path: Path, *, is_zero: bool = False, size_mib: int = VOLUME_MIB) -> Target:
    return Target(spec=spec(size_mib=size_mib), path=path, handle="x", is_zero=is_zero)


def test_the_command_line() -> None:
    assert convert_words("qcow2", is_block=True, is_zero=True) == [
        *("qemu-img", "convert", "-p", "-n", "-t", "none", "-W", "-m", "8", "--target-is-zero"),
        'json:{"driver":"qcow2","read-only":true,"file":{"driver":"file","filename":"/proc/self/fd/3","locking":"off",'
        '"read-only":true},"backing":null}',
        'json:{"driver":"raw","discard":"unmap","file":{"driver":"host_device","filename":"/proc/self/fd/4",'
        '"locking":"off","discard":"unmap"}}',
    ]
    assert "--target-is-zero" not in convert_words("raw", is_block=False, is_zero=False)


async def test_nothing_of_who_had_the_target_before_is_left(tmp_path: Path, image: GoldenImage) -> None:
    path = tmp_path / "volume"
    path.write_bytes(b"somebody's" * (VOLUME_MIB * MIB // 10 + 1))
    os.truncate(path, VOLUME_MIB * MIB)
    await populate(image, target_at(path), ignore)
    assert path.read_bytes() == expected()


@pytest.mark.root
async def test_a_block_device_is_filled_to_its_end(tmp_path: Path, image: GoldenImage) -> None:
    path = tmp_path / "volume"
    path.write_bytes(b"somebody's" * (VOLUME_MIB * MIB // 10 + 1))
    os.truncate(path, VOLUME_MIB * MIB)
    with loop_device(path) as device:
        await populate(image, target_at(device), ignore)
    assert path.read_bytes() == expected()


@pytest.mark.root
async def test_a_storage_that_is_full_is_said_to_be(tmp_path: Path) -> None:
    image = make_image(tmp_path, "raw", os.urandom(DISK_MIB * MIB))
    with small_file_system(tmp_path, 12) as point:
        path = point / "volume"
        path.touch()
        os.truncate(path, VOLUME_MIB * MIB)
        with pytest.raises(NoSpace, match="full"):
            await populate(image, target_at(path, is_zero=True), ignore)


async def test_an_image_that_ends_early_is_no_success(tmp_path: Path, image: GoldenImage) -> None:
    os.truncate(image.path, image.path.stat().st_size // 2)
    path = tmp_path / "volume"
    path.touch()
    os.truncate(path, VOLUME_MIB * MIB)
    with pytest.raises(PopulateFailed, match="cut short"):
        await populate(image, target_at(path, is_zero=True), ignore)


async def test_too_small_a_target_is_refused_before_anything_is_written(tmp_path: Path, image: GoldenImage) -> None:
    path = tmp_path / "volume"
    path.write_bytes(b"somebody's")
    with pytest.raises(InvalidInput):
        await populate(image, target_at(path, size_mib=1), ignore)
    with pytest.raises(PopulateFailed, match="smaller"):
        await populate(image, target_at(path), ignore)
    assert path.read_bytes() == b"somebody's"


async def test_a_host_file_that_an_image_names_is_not_read(tmp_path: Path) -> None:
    """Even where nobody had judged the image: the enclosure has no such file, and the backing file is not followed."""
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret" * 100_000)
    path = tmp_path / "image"
    subprocess.run(  # noqa: ASYNC221 - a moment
        ["qemu-img", "create", "-q", "-f", "qcow2", "-b", str(secret), "-F", "raw", str(path), f"{DISK_MIB}M"],
        check=True,
    )
    hostile = GoldenImage(
        path=path, format="qcow2", key="0" * 64, size_bytes=path.stat().st_size, virtual_size_bytes=DISK_MIB * MIB
    )
    out = tmp_path / "volume"
    out.touch()
    os.truncate(out, VOLUME_MIB * MIB)
    await populate(hostile, target_at(out, is_zero=True), ignore)
    assert not any(out.read_bytes())


async def test_cancelled_it_ends_at_once_with_its_children(tmp_path: Path) -> None:
    image = make_image(tmp_path, "qcow2", os.urandom(DISK_MIB * MIB))
    path = tmp_path / "volume"
    path.touch()
    os.truncate(path, VOLUME_MIB * MIB)
    for _ in range(3):
        begun = asyncio.Event()
        work = asyncio.create_task(populate(image, target_at(path), lambda done, total: begun.set()))  # noqa: B023
        await begun.wait()
        await asyncio.sleep(0)
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
        assert tools_of(os.getpid()) == []


def test_what_was_not_zeroed_is_found_by_reading_it_back(tmp_path: Path) -> None:
    path = tmp_path / "volume"
    path.write_bytes(b"x" * (8 * MIB))
    descriptor = os.open(path, os.O_RDWR)
    try:
        assert size_of(descriptor) == 8 * MIB
        with pytest.raises(PopulateFailed, match="not empty"):
            prove_zero(descriptor, MIB, 8 * MIB)
        zero(descriptor, MIB, 8 * MIB, threading.Event())
        prove_zero(descriptor, MIB, 8 * MIB)
        prove_zero(descriptor, 8 * MIB, 8 * MIB)
    finally:
        os.close(descriptor)
    assert path.read_bytes() == b"x" * MIB + bytes(7 * MIB)
