"""The images that tests of real machines boot, built by the project's own set-up."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from hearth.config import DataDirectory, default_data_root
from hearth.engine.base import BootFiles
from hearth.errors import NotFound
from hearth.image.store import ImageStore

NAMES = ("kernel", "agent", "debian")
DATA = DataDirectory(root=default_data_root({}, is_root=True))


def boot_files(rootfs: str = "debian") -> BootFiles:
    """Give what ``make setup`` has built; without it a test of a machine fails and says what to do."""
    store = ImageStore(DATA)
    try:
        kernel, agent, root = (store.get(name) for name in ("kernel", "agent", rootfs))
    except NotFound as error:
        pytest.fail(f"{error}: run 'make setup' first", pytrace=False)
    return BootFiles(kernel=kernel.path, initramfs=agent.path, rootfs=root.path, rootfs_sha256=root.sha256)


def link_images(data: DataDirectory) -> None:
    """Let a data directory of a test share the images of the set-up."""
    data.root.mkdir(mode=0o700, parents=True, exist_ok=True)
    data.images.symlink_to(DATA.images)


def copy_images(data: DataDirectory, names: Sequence[str] = NAMES) -> None:
    """Give a data directory of a test images of its own: those of the set-up, whatever others make there meanwhile.

    Sparse files stay sparse; packages that were downloaded come along.
    """
    boot_files()
    theirs = ImageStore(DATA)
    wanted = [theirs.get(name).path.relative_to(DATA.images).parts[0] for name in names]
    ImageStore(data).prepare()
    for name in names:
        shutil.copy2(DATA.images / "names" / name, data.images / "names" / name, follow_symlinks=False)
    packages = [str(path) for path in (DATA.images / "downloads").glob("*.deb")]
    copy = ["cp", "-a", "--reflink=auto", "--sparse=always"]
    subprocess.run([*copy, *(str(DATA.images / each) for each in wanted), str(data.images)], check=True)
    if packages:
        subprocess.run([*copy, *packages, str(data.images / "downloads")], check=True)


def short_directory(path: Path) -> Path:
    """Give ``path`` when Unix sockets fit below it."""
    DataDirectory(root=path).check()
    return path
