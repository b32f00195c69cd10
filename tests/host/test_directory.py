"""A data directory's marks hold for that directory in this boot, and for nothing that looks like it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from hearth.config import DataDirectory
from hearth.host.directory import load_tag, prepare_directory


def test_a_directory_keeps_its_tag_by_whatever_path_it_is_reached(tmp_path: Path) -> None:
    data = prepare_directory(DataDirectory(root=tmp_path / "data"))
    (tmp_path / "link").symlink_to(data.root)
    linked = prepare_directory(DataDirectory(root=tmp_path / "link"))

    assert linked.root == data.root
    assert load_tag(linked) == load_tag(data)
    assert data.mark.stat().st_mode & 0o777 == 0o600


def test_a_copy_of_a_directory_gets_a_tag_of_its_own(tmp_path: Path) -> None:
    data = prepare_directory(DataDirectory(root=tmp_path / "data"))
    tag = load_tag(data)
    shutil.copytree(data.root, tmp_path / "copy")

    assert load_tag(DataDirectory(root=tmp_path / "copy")) != tag
    assert load_tag(data) == tag


def test_a_tag_of_another_boot_or_no_sense_is_replaced(tmp_path: Path) -> None:
    data = prepare_directory(DataDirectory(root=tmp_path / "data"))
    tag = load_tag(data)
    known = json.loads(data.mark.read_text())
    for text in (json.dumps({**known, "boot_id": "another"}), "{", "[]", json.dumps({**known, "tag": "../x"})):
        data.mark.write_text(text)
        assert load_tag(data) != tag


def test_machines_directories_are_closed_even_below_an_open_root(tmp_path: Path) -> None:
    (tmp_path / "machines").mkdir(mode=0o755)
    data = prepare_directory(DataDirectory(root=tmp_path))

    assert data.machines.stat().st_mode & 0o777 == 0o700
