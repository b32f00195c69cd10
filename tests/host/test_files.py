"""Whole or absent, whatever happens: checked against the real file system, a real full disk and a real kill."""

from __future__ import annotations

import ctypes
import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hearth.errors import Conflict, NoSpace
from hearth.host import files

MEBIBYTE = 1024 * 1024
WRITE_FOR_EVER = """
import sys
from pathlib import Path
from hearth.host.files import write_atomic
path = Path(sys.argv[1])
for turn in range(10**9):
    write_atomic(path, bytes([turn % 256]) * 300_000)
    print(turn, flush=True)
"""


@contextmanager
def mounted_tmpfs(point: Path, options: str) -> Iterator[Path]:
    libc = ctypes.CDLL(None, use_errno=True)
    point.mkdir()
    assert libc.mount(b"tmpfs", os.fsencode(point), b"tmpfs", ctypes.c_ulong(0), options.encode()) == 0
    try:
        yield point
    finally:
        assert libc.umount(os.fsencode(point)) == 0


def test_written_file_has_its_bytes_its_mode_and_no_neighbours(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    files.write_atomic(path, b"first")
    files.write_atomic(path, b"second")
    assert path.read_bytes() == b"second"
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_killed_writer_leaves_a_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with subprocess.Popen([sys.executable, "-c", WRITE_FOR_EVER, str(path)], stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        for _ in range(20):
            writer.stdout.readline()
        writer.send_signal(signal.SIGKILL)
    data = path.read_bytes()
    assert len(data) == 300_000
    assert len(set(data)) == 1
    for left in tmp_path.glob("*.tmp"):
        left.unlink()


@pytest.mark.root
def test_full_disk_is_said_with_the_path_and_keeps_the_old_file(tmp_path: Path) -> None:
    with mounted_tmpfs(tmp_path / "small", "size=64k") as small:
        path = small / "file"
        files.write_atomic(path, b"old")
        with pytest.raises(NoSpace, match=str(path)):
            files.write_atomic(path, bytes(MEBIBYTE))
        assert path.read_bytes() == b"old"
        assert list(small.iterdir()) == [path]


@pytest.mark.root
def test_too_little_space_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with mounted_tmpfs(tmp_path / "small", "size=64k") as small:
        files.require_free(small, 4096)
        with pytest.raises(NoSpace) as caught:
            files.require_free(small, MEBIBYTE)
        assert str(small) in caught.value.details
        assert str(MEBIBYTE) in caught.value.details


def test_directory_is_published_under_a_free_name_only(tmp_path: Path) -> None:
    first, second, final = tmp_path / "a", tmp_path / "b", tmp_path / "final"
    for staging in (first, second):
        staging.mkdir()
        (staging / "content").write_text(staging.name)
    assert files.publish_directory(first, final)
    assert not files.publish_directory(second, final)
    assert (final / "content").read_text() == "a"
    assert second.exists()


@pytest.mark.parametrize(
    "pieces",
    [
        [],
        [(0, b"x")],
        [(0, b"begin"), (3 * MEBIBYTE + 17, b"after a hole")],
        [(5 * MEBIBYTE, b"only here")],
        [(MEBIBYTE - 1, b"across a chunk")],
    ],
)
@pytest.mark.parametrize("size", [0, 6 * MEBIBYTE + 5])
def test_checksum_of_a_sparse_file_is_that_of_its_bytes(
    tmp_path: Path, pieces: list[tuple[int, bytes]], size: int
) -> None:
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        for offset, data in pieces:
            file.seek(offset)
            file.write(data)
        file.truncate(max(size, file.tell()))
    assert files.hash_file(path) == hashlib.sha256(path.read_bytes()).hexdigest()


def test_tree_is_removed_without_following_its_links(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("stays")
    tree = tmp_path / "tree"
    (tree / "below").mkdir(parents=True)
    (tree / "below" / "link").symlink_to(outside)
    (tree / "up").symlink_to(tmp_path)
    files.remove_tree(tree)
    files.remove_tree(tree)
    assert not tree.exists()
    assert outside.read_text() == "stays"


@pytest.mark.root
def test_tree_with_a_mount_inside_is_not_removed(tmp_path: Path) -> None:
    tree = tmp_path / "tree with blank"
    tree.mkdir()
    with mounted_tmpfs(tree / "mnt", "size=64k") as point:
        (point / "theirs").write_text("stays")
        with pytest.raises(Conflict, match="mnt"):
            files.remove_tree(tree)
        assert (point / "theirs").read_text() == "stays"
    files.remove_tree(tree)
    assert not tree.exists()
