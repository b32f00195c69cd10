"""The archive: its exact bytes for a small case, its order and what it refuses; the kernel is the judge elsewhere."""

from __future__ import annotations

import itertools
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from hearth.image import cpio

# ino mode uid gid, nlink mtime filesize, devmajor devminor rdevmajor rdevminor, namesize check
GOLDEN = (
    b"070701" + b"00000001" + b"000081ed" + b"00000000" * 2 + b"00000001" + b"00000000" + b"00000003"
    + b"00000000" * 4 + b"00000005" + b"00000000" + b"init\0" + b"\0" + b"abc" + b"\0"
)  # fmt: skip


def test_one_file_has_exactly_these_bytes() -> None:
    archive = cpio.pack([cpio.file("init", b"abc", executable=True)])
    assert archive.startswith(GOLDEN)
    assert len(archive) % cpio.ALIGNMENT == 0
    assert archive.rstrip(b"\0").endswith(b"TRAILER!!!")


def test_order_of_entries_does_not_matter() -> None:
    entries = [cpio.file("b/x", b"1"), cpio.file("a", b"2"), cpio.symlink("b/l", "x"), cpio.directory("c")]
    assert len({cpio.pack(permuted) for permuted in itertools.permutations(entries)}) == 1


@pytest.mark.skipif(shutil.which("cpio") is None, reason="needs the tool cpio to read the archive back")
def test_another_reader_finds_every_entry_with_parents_first(tmp_path: Path) -> None:
    entries = [
        cpio.file("usr/bin/program", b"x" * 5, executable=True),
        cpio.file("usr.conf", b""),
        cpio.symlink("usr/bin/name", "program"),
        cpio.directory("tmp", mode=0o1777),
    ]
    archive = cpio.pack(entries)
    listed = subprocess.run(["cpio", "-t", "--quiet"], input=archive, capture_output=True, check=True)
    assert listed.stdout.decode().split() == ["tmp", "usr", "usr/bin", "usr/bin/name", "usr/bin/program", "usr.conf"]
    subprocess.run(["cpio", "-idm", "--quiet"], input=archive, cwd=tmp_path, check=True)
    assert (tmp_path / "usr/bin/name").read_bytes() == b"xxxxx"
    assert (tmp_path / "usr/bin/program").stat().st_mode == stat.S_IFREG | 0o755
    assert (tmp_path / "tmp").stat().st_mode == stat.S_IFDIR | 0o1777
    assert (tmp_path / "usr.conf").stat().st_mtime == 0


@pytest.mark.parametrize("path", ["/init", "a/../b", "./a", "a//b", "", "a/"])
def test_path_that_would_land_elsewhere_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match="plain relative path"):
        cpio.pack([cpio.file(path, b"")])


def test_same_path_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="twice"):
        cpio.pack([cpio.file("a", b"1"), cpio.file("a", b"2")])


def test_device_carries_its_numbers() -> None:
    archive = cpio.pack([cpio.character_device("console", 5, 1)])
    assert archive[6 + 9 * 8 : 6 + 11 * 8] == b"0000000500000001"
