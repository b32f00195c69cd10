"""Volumes on real file systems, small ones where they are to be full."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from hearth.host.clock import SystemClock
from hearth.volume.file import FileVolumes


@pytest.fixture
def volumes(tmp_path: Path) -> FileVolumes:
    """An empty place for volumes."""
    made = FileVolumes(tmp_path / "volumes", clock=SystemClock())
    made.prepare()
    return made


@contextlib.contextmanager
def mounted(image: Path, point: Path, *options: str) -> Iterator[Path]:
    """Mount a file through a loop device."""
    point.mkdir(exist_ok=True)
    subprocess.run(["mount", "-o", ",".join(["loop", *options]), str(image), str(point)], check=True)
    try:
        yield point
    finally:
        subprocess.run(["umount", str(point)], check=True)


@contextlib.contextmanager
def small_file_system(directory: Path, size_mib: int, *, at: Path | None = None) -> Iterator[Path]:
    """An ext4 of its own, mounted at a place: it fills up like a real disk, because it is one."""
    image = directory / "host.img"
    with image.open("wb") as file:
        file.truncate(size_mib * 1024 * 1024)
    subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", "-m", "0", str(image)], check=True)
    with mounted(image, at or directory / "host") as point:
        yield point
