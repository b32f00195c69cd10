"""Copies of sparse files are equal, stay sparse, share where they can, and stop when nobody wants them."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.volume.conftest import mounted

from hearth.host.files import hash_file
from hearth.volume.copying import copy_sparse

MEBIBYTE = 1024 * 1024


@contextmanager
def opened(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def write_pieces(path: Path, size: int, pieces: list[tuple[int, bytes]]) -> Path:
    with path.open("wb") as file:
        for offset, data in pieces:
            file.seek(offset)
            file.write(data)
        file.truncate(size)
    return path


@pytest.mark.parametrize(
    ("size", "pieces"),
    [
        (0, []),
        (MEBIBYTE, []),
        (1000, [(0, b"short")]),
        (64 * MEBIBYTE, [(0, b"a" * 5000), (40 * MEBIBYTE, b"b" * MEBIBYTE), (64 * MEBIBYTE - 1, b"c")]),
        (40 * MEBIBYTE, [(0, os.urandom(40 * MEBIBYTE))]),
    ],
)
async def test_a_copy_has_the_same_bytes_and_takes_up_no_more(
    tmp_path: Path, size: int, pieces: list[tuple[int, bytes]]
) -> None:
    source, target = write_pieces(tmp_path / "source", size, pieces), tmp_path / "target"
    with opened(source) as descriptor:
        await copy_sparse(descriptor, target)
    assert target.stat().st_size == size
    assert hash_file(target) == hash_file(source)
    assert target.stat().st_blocks <= source.stat().st_blocks + 16
    assert target.stat().st_mode & 0o777 == 0o600


async def test_an_existing_file_is_never_written_over(tmp_path: Path) -> None:
    source = write_pieces(tmp_path / "source", 10, [(0, b"new")])
    target = write_pieces(tmp_path / "target", 10, [(0, b"old")])
    with opened(source) as descriptor, pytest.raises(FileExistsError):
        await copy_sparse(descriptor, target)
    assert hash_file(target) == hash_file(write_pieces(tmp_path / "again", 10, [(0, b"old")]))


async def test_a_copy_that_is_cancelled_stops_before_its_end(tmp_path: Path) -> None:
    source = write_pieces(tmp_path / "source", 512 * MEBIBYTE, [(n * MEBIBYTE, bytes(MEBIBYTE)) for n in range(512)])
    with opened(source) as descriptor:
        copying = asyncio.create_task(copy_sparse(descriptor, tmp_path / "target"))
        async with asyncio.timeout(60):
            while not (tmp_path / "target").exists():
                await asyncio.sleep(0)
        copying.cancel()
        with pytest.raises(asyncio.CancelledError):
            await copying
    assert (tmp_path / "target").stat().st_blocks < source.stat().st_blocks


@pytest.mark.root
@pytest.mark.skipif(shutil.which("mkfs.xfs") is None, reason="needs xfsprogs: a file system that can share blocks")
async def test_where_blocks_can_be_shared_a_copy_takes_none_and_goes_its_own_way(tmp_path: Path) -> None:
    image = tmp_path / "host.img"
    image.touch()
    os.truncate(image, 320 * MEBIBYTE)
    make_xfs(image)
    with mounted(image, tmp_path / "host") as host:
        source = write_pieces(host / "source", 128 * MEBIBYTE, [(0, os.urandom(100 * MEBIBYTE))])
        before = hash_file(source)
        with opened(source) as descriptor:
            os.fsync(descriptor)
            used = shutil.disk_usage(host).used
            assert await copy_sparse(descriptor, host / "target") is True
        assert shutil.disk_usage(host).used - used < MEBIBYTE
        with (host / "target").open("r+b") as file:
            file.write(b"changed")
        assert hash_file(source) == before != hash_file(host / "target")


def make_xfs(image: Path) -> None:
    subprocess.run(["mkfs.xfs", "-q", str(image)], check=True)
