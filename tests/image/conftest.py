"""Real images for tests that boot machines: built once into a cache shared by all runs, 30 s the first time.

The cache is $HEARTH_TEST_DATA, by default /var/tmp/hearth-test-<uid>. A change of the agent's sources or new packages
rebuild what they touch.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path

import pytest

from hearth.config import DataDirectory
from hearth.engine.base import BootFiles
from hearth.host import files
from hearth.image.apt import Apt
from hearth.image.build import BootSet, build_all
from hearth.image.progress import ignore_progress
from hearth.image.rootfs import rootfs_from_tree
from hearth.image.store import Image, ImageStore


def shared_data() -> DataDirectory:
    """Give the directory shared by test runs."""
    chosen = os.environ.get("HEARTH_TEST_DATA") or f"/var/tmp/hearth-test-{os.getuid()}"
    return DataDirectory(root=Path(chosen))


@pytest.fixture(scope="session")
def image_store() -> ImageStore:
    """The cache as an image store."""
    if os.geteuid() != 0:
        pytest.skip("building images needs root: run it with sudo")
    store = ImageStore(shared_data())
    store.prepare()
    return store


@pytest.fixture(scope="session")
def boot_set(image_store: ImageStore) -> BootSet:
    """Kernel, agent and the root file system ``debian``."""
    return asyncio.run(build_all(image_store, ignore_progress))


@pytest.fixture(scope="session")
def boot_files(boot_set: BootSet) -> BootFiles:
    """The same as paths for an engine."""
    return BootFiles(
        kernel=boot_set.kernel.path,
        initramfs=boot_set.agent.path,
        rootfs=boot_set.rootfs.path,
        rootfs_sha256=boot_set.rootfs.sha256,
    )


@pytest.fixture(scope="session")
def busybox(image_store: ImageStore) -> Path:
    """A static program of many names, for root file systems that hold nothing else."""
    return asyncio.run(fetch_busybox(image_store))


@pytest.fixture(scope="session")
def bare_rootfs(image_store: ImageStore, busybox: Path, tmp_path_factory: pytest.TempPathFactory) -> Image:
    """A root file system that holds /busybox and mount points: no shell, no library, no /bin."""
    tree = tmp_path_factory.mktemp("bare")
    shutil.copy2(busybox, tree / "busybox")
    return asyncio.run(rootfs_from_tree(image_store, tree, "bare", size_mib=64))


async def fetch_busybox(store: ImageStore) -> Path:
    """Give the binary of the package busybox-static, out of the cache from the second time on."""
    apt = Apt(store)
    (package,) = await apt.show(["busybox-static"])
    binary = store.root.parent / f"busybox-{package.sha256[:16]}"
    if not binary.exists():
        async with store.alone("busybox") as staging:
            await apt.unpack([package], staging)
            found = next(path for path in staging.rglob("busybox") if path.is_file())
            files.write_atomic(binary, found.read_bytes(), mode=0o755)
    return binary
