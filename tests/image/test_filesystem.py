"""From a tree to an ext4 that another reader (debugfs) agrees with."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from hearth.host.process import CommandFailed
from hearth.image.filesystem import MEBIBYTE, Account, add_account, add_mount_points, make_ext4, trim


def ask(image: Path, request: str) -> str:
    shown = subprocess.run(["debugfs", "-R", request, str(image)], capture_output=True, check=True)
    return shown.stdout.decode()


def test_mount_points_are_added_and_what_is_there_stays(tmp_path: Path) -> None:
    (tmp_path / "run").symlink_to("elsewhere")
    (tmp_path / "etc").mkdir(mode=0o700)
    add_mount_points(tmp_path)
    assert (tmp_path / "run").is_symlink()
    assert (tmp_path / "etc").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "tmp").stat().st_mode & 0o7777 == 0o1777
    assert all((tmp_path / name).is_dir() for name in ("proc", "sys", "dev", "root"))


def test_account_has_its_line_everywhere_and_a_home(tmp_path: Path) -> None:
    (tmp_path / "etc/skel").mkdir(parents=True)
    (tmp_path / "etc/skel/.profile").write_text("hello")
    (tmp_path / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/bash\n")
    add_account(tmp_path, Account(name="user", uid=1000))
    assert (tmp_path / "etc/passwd").read_text().endswith("user:x:1000:1000::/home/user:/bin/sh\n")
    assert (tmp_path / "etc/group").read_text() == "user:x:1000:\n"
    assert (tmp_path / "etc/shadow").read_text().startswith("user:!:")
    home = tmp_path / "home/user"
    assert (home.stat().st_mode & 0o777, (home / ".profile").read_text()) == (0o755, "hello")


def test_trimming_removes_matches_and_never_follows_links(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("stays")
    tree = tmp_path / "tree"
    (tree / "var/cache/apt").mkdir(parents=True)
    (tree / "var/log").symlink_to(outside)
    (tree / "a.pem").write_text("")
    trim(tree, ["var/cache/*", "var/log", "*.pem", "no/such/*"])
    assert sorted(path.name for path in tree.rglob("*")) == ["cache", "var"]
    assert (outside / "file").exists()


def check(image: Path) -> None:
    subprocess.run(["e2fsck", "-fn", str(image)], capture_output=True, check=True)


@pytest.mark.root
async def test_file_system_holds_the_tree_and_is_sparse(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "hello").write_text("hello")
    image = tmp_path / "disk"
    await make_ext4(tree, image, label="test", size_mib=1024, seed="seed")
    assert image.stat().st_size == 1024 * MEBIBYTE
    assert image.stat().st_blocks * 512 < 32 * MEBIBYTE
    assert ask(image, "cat /hello") == "hello"
    header = ask(image, "show_super_stats -h")
    for line in ("Filesystem state:         clean", "Reserved block count:     0", "Lifetime writes"):
        assert line in header
    assert "has_journal" in header
    check(image)


@pytest.mark.root
async def test_equal_seeds_give_equal_identities(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    found = []
    for name, seed in (("a", "x"), ("b", "x"), ("c", "y")):
        await make_ext4(tree, tmp_path / name, label="test", size_mib=16, seed=seed)
        header = ask(tmp_path / name, "show_super_stats -h")
        found.append(next(line for line in header.splitlines() if "UUID" in line))
    assert found[0] == found[1] != found[2]


@pytest.mark.root
async def test_tree_too_big_for_its_file_system_is_an_error(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "big").write_bytes(b"x" * 32 * MEBIBYTE)
    with pytest.raises(CommandFailed, match="mke2fs"):
        await make_ext4(tree, tmp_path / "disk", label="test", size_mib=16, seed="seed")
