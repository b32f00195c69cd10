"""Every VMM gets a user id that no other machine of the data directory has."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from hearth.engine.qemu.vmm_user import COUNT, FIRST, take_user, user_of

pytestmark = pytest.mark.root


def machine(root: Path, name: str) -> Path:
    directory = root / name
    directory.mkdir()
    return directory


def test_no_two_machines_share_a_user(tmp_path: Path) -> None:
    users = [take_user(machine(tmp_path, f"sb-{number}")) for number in range(5)]

    assert len(set(users)) == 5
    assert [user_of(tmp_path / f"sb-{number}") for number in range(5)] == users
    assert all(FIRST <= user < FIRST + COUNT for user in users)


def test_two_data_directories_that_know_nothing_of_each_other_share_no_user(tmp_path: Path) -> None:
    users = set()
    for number in range(50):
        root = tmp_path / str(number)
        root.mkdir()
        users.add(take_user(machine(root, "sb-a")))

    assert len(users) == 50


def test_machines_that_vanish_while_a_user_is_chosen_disturb_nobody(tmp_path: Path) -> None:
    stopped = threading.Event()

    def churn() -> None:
        while not stopped.is_set():
            (tmp_path / "gone").mkdir()
            (tmp_path / "gone").rmdir()

    churning = threading.Thread(target=churn)
    churning.start()
    try:
        for number in range(200):
            take_user(machine(tmp_path, f"sb-{number}"))
    finally:
        stopped.set()
        churning.join()


def test_a_machine_that_is_not_there_is_nobodys(tmp_path: Path) -> None:
    assert user_of(tmp_path / "nothing") is None
