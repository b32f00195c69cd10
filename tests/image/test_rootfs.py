"""Root file systems: from trees and archives for real, the distribution's one by its command line."""

from __future__ import annotations

import subprocess
import tarfile
from pathlib import Path

import pytest

from hearth.config import DataDirectory
from hearth.errors import InvalidInput
from hearth.host.process import CommandFailed
from hearth.image.recipe import rootfs_recipe
from hearth.image.release import Release
from hearth.image.rootfs import Places, bootstrap_command, hash_tree, parse_installed, rootfs_from_tree
from hearth.image.store import ImageStore


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(DataDirectory(root=tmp_path / "data"))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    tree = tmp_path / "source"
    (tree / "bin").mkdir(parents=True)
    (tree / "bin/tool").write_bytes(b"static")
    (tree / "bin/tool").chmod(0o4755)
    (tree / "bin/name").symlink_to("tool")
    return tree


def ask(image: Path, request: str) -> str:
    shown = subprocess.run(["debugfs", "-R", request, str(image)], capture_output=True, check=True)
    return shown.stdout.decode()


@pytest.mark.root
async def test_tree_becomes_a_file_system_with_mount_points(store: ImageStore, tree: Path) -> None:
    image = await rootfs_from_tree(store, tree, "bare", size_mib=16)
    assert ask(image.path, "cat /bin/tool") == "static"
    assert "Mode:  04755" in ask(image.path, "stat /bin/tool")
    assert 'Fast link dest: "tool"' in ask(image.path, "stat /bin/name")
    assert "Mode:  01777" in ask(image.path, "stat /tmp")
    assert "Type: directory" in ask(image.path, "stat /proc")
    assert not (tree / "proc").exists(), "the source is not ours to change"
    assert (await rootfs_from_tree(store, tree, "bare", size_mib=16)).id == image.id


@pytest.mark.root
async def test_archive_becomes_the_same_files(store: ImageStore, tree: Path, tmp_path: Path) -> None:
    archive = tmp_path / "root.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(tree, arcname=".")
    image = await rootfs_from_tree(store, archive, "bare", size_mib=16)
    assert ask(image.path, "cat /bin/tool") == "static"
    assert "Mode:  04755" in ask(image.path, "stat /bin/tool")


@pytest.mark.root
async def test_damaged_archive_leaves_nothing(store: ImageStore, tmp_path: Path) -> None:
    archive = tmp_path / "root.tar"
    archive.write_bytes(b"no archive" * 1000)
    with pytest.raises(CommandFailed, match="tar"):
        await rootfs_from_tree(store, archive, "bare", size_mib=16)
    assert store.list() == []
    assert list(store.root.glob("*.tmp")) == []


async def test_source_that_is_not_there_is_named(store: ImageStore, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="nowhere"):
        await rootfs_from_tree(store, tmp_path / "nowhere", "bare")


def test_tree_hash_sees_names_modes_links_and_contents(tree: Path) -> None:
    seen = {hash_tree(tree)}
    (tree / "bin/tool").write_bytes(b"Static")
    seen.add(hash_tree(tree))
    (tree / "bin/tool").chmod(0o755)
    seen.add(hash_tree(tree))
    (tree / "bin/name").unlink()
    (tree / "bin/name").symlink_to("elsewhere")
    seen.add(hash_tree(tree))
    (tree / "bin/name").rename(tree / "bin/other")
    seen.add(hash_tree(tree))
    assert len(seen) == 5


def test_command_line_of_the_bootstrap_is_this(tmp_path: Path) -> None:
    places = Places(source_list=Path("/s/sources.list"), archives=Path("/d/archives"), tree=Path("/s/tree"))
    release = Release(id="debian", family="debian", codename="bookworm")
    argv = bootstrap_command(rootfs_recipe(), release, places, ['Acquire::Retries "3";'])
    assert argv[:4] == ["mmdebstrap", "--mode=root", "--variant=minbase", "--format=directory"]
    assert argv[-3:] == ["bookworm", "/s/tree", "/s/sources.list"]
    assert '--aptopt=Acquire::Retries "3";' in argv
    assert "--include=ca-certificates,curl,iproute2,procps,python3" in argv
    assert argv.index("--setup-hook=sync-in /d/archives /var/cache/apt/archives") > argv.index(
        '--setup-hook=mkdir -p "$1/var/cache/apt/archives"'
    )


def test_installed_packages_are_read_from_dpkg() -> None:
    status = (
        "Package: zlib1g\nStatus: install ok installed\nVersion: 1:1.2\nDepends: libc6\n\n"
        "Package: apt\nConffiles:\n /etc/apt 1234\nVersion: 2.6.1\n"
    )
    assert parse_installed(status) == ["apt 2.6.1", "zlib1g 1:1.2"]
