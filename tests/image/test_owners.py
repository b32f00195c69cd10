"""Owners of files in a root file system that an ordinary user made."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from pathlib import Path

import pytest
from tests.server.daemon import data_directory
from tests.unprivileged import ordinary_user

from hearth.image.apt_state import AptState
from hearth.image.owners import ROOTS, owners_for

BUILD = """
import asyncio, sys
from pathlib import Path
from hearth.config import DataDirectory
from hearth.image.rootfs import rootfs_from_tree
from hearth.image.store import ImageStore
data = DataDirectory(root=Path(sys.argv[1]))
store = ImageStore(data)
store.prepare()
image = asyncio.run(rootfs_from_tree(store, Path(sys.argv[2]), "mine", size_mib=16))
print(image.path)
"""
FILES = {"etc/shadow": (0, 42, 0o640), "home/user/x": (1000, 1000, 0o600), "bin/su": (0, 0, 0o4755)}


def archive(path: Path) -> None:
    with tarfile.open(path, "w") as tar:
        for name, (uid, gid, mode) in FILES.items():
            entry = tarfile.TarInfo(name)
            entry.uid, entry.gid, entry.mode, entry.size = uid, gid, mode, 4
            tar.addfile(entry, io.BytesIO(b"text"))


@pytest.mark.root
def test_an_ordinary_users_root_file_system_has_the_owners_that_its_archive_tells() -> None:
    user = ordinary_user()
    with data_directory() as data:
        os.chown(data.root, user.uid, user.uid)
        source = data.root / "files.tar"
        archive(source)
        done = user.run(data.root, "-c", BUILD, str(data.root), str(source))
        assert done.returncode == 0, done.stderr.decode()
        image = Path(done.stdout.decode().splitlines()[-1])
        for name, (uid, gid, mode) in FILES.items():
            shown = subprocess.run(["debugfs", "-R", f"stat /{name}", str(image)], capture_output=True, check=True)
            words = shown.stdout.decode().split()
            told = tuple(words[words.index(word) + 1] for word in ("User:", "Group:", "Mode:"))
            assert (int(told[0]), int(told[1]), int(told[2], 8)) == (uid, gid, mode), name
        assert sorted(path.name for path in image.parent.iterdir()) == ["manifest.json", "rootfs.ext4"]


@pytest.mark.root
def test_root_owns_what_it_makes_and_keeps_no_books(tmp_path: Path) -> None:
    assert owners_for(tmp_path) is ROOTS
    assert [*tmp_path.iterdir()] == []


def test_root_uses_apts_own_state(tmp_path: Path) -> None:
    state = AptState(tmp_path / "apt", is_root=True)
    state.begin_own()
    assert (state.environment(), (tmp_path / "apt").exists()) == ({}, False)


def test_a_user_reads_the_systems_lists_until_there_are_own_ones(tmp_path: Path) -> None:
    state = AptState(tmp_path / "apt", is_root=False)
    settings = Path(state.environment()["APT_CONFIG"])
    assert "NoLocking" in settings.read_text()
    assert "lists" not in settings.read_text()
    state.begin_own()
    assert state.environment() == {"APT_CONFIG": str(settings)}
    assert f'Dir::State::lists "{tmp_path}/apt/lists";' in settings.read_text()
