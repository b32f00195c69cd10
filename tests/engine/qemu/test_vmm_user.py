"""Every VMM gets a user id that no other machine of the data directory has."""

from __future__ import annotations

from pathlib import Path

import pytest

from hearth.engine.qemu.vmm_user import BASE, BLOCKS, PER_BLOCK, take_user, user_of

pytestmark = pytest.mark.root


def machine(root: Path, name: str) -> Path:
    directory = root / name
    directory.mkdir()
    return directory


def test_no_two_machines_share_a_user(tmp_path: Path) -> None:
    users = [take_user(machine(tmp_path, f"sb-{number}")) for number in range(5)]

    assert len(set(users)) == 5
    assert [user_of(tmp_path / f"sb-{number}") for number in range(5)] == users
    assert all(BASE <= user < BASE + BLOCKS * PER_BLOCK for user in users)


def test_a_removed_machines_user_is_given_again(tmp_path: Path) -> None:
    first = take_user(machine(tmp_path, "sb-a"))
    take_user(machine(tmp_path, "sb-b"))
    (tmp_path / "sb-a").rmdir()

    assert take_user(machine(tmp_path, "sb-c")) == first


def test_another_data_directory_hands_out_other_users(tmp_path: Path) -> None:
    blocks = set()
    for number in range(20):
        root = tmp_path / str(number)
        root.mkdir()
        blocks.add(take_user(machine(root, "sb-a")))

    assert len(blocks) > 15
