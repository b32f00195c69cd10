"""Accounts below a root of our own making."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from hearth.agent import accounts
from hearth.agent.accounts import Account, Accounts

PASSWD = "root:x:0:0:root:/root:/bin/sh\nbroken line\nuser:x:1000:1001::/home/user:/bin/sh\nbad:x:-1:z::/:\n"
GROUP = "wheel:x:10:other,user\nuser:x:1001:user\nnone:x:12:\nweird:x:zz:user\n"


@pytest.fixture
def databases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "passwd").write_text(PASSWD)
    (tmp_path / "group").write_text(GROUP)
    monkeypatch.setattr(accounts, "_PASSWD", str(tmp_path / "passwd"))
    monkeypatch.setattr(accounts, "_GROUP", str(tmp_path / "group"))
    yield tmp_path


USER = Account("user", 1000, 1001, "/home/user", (10,))


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("user", USER),
        ("1000", USER),
        ("root", Account("root", 0, 0, "/root")),
        ("4242", Account("4242", 4242, 4242, "/")),
        ("nobody-here", None),
        ("bad", None),
        ("", None),
        ("-1", None),
        ("4294967295", None),
    ],
)
def test_names_and_numbers_are_found(databases: Path, asked: str, found: Account | None) -> None:
    assert Accounts().find(asked) == found


def test_a_changed_file_is_read_again(databases: Path) -> None:
    known = Accounts()
    assert known.find("new") is None
    (databases / "passwd").write_text(f"{PASSWD}new:x:7:7::/n:\n")
    assert known.find("new") == Account("new", 7, 7, "/n")


def test_without_any_files_there_are_root_and_numbers(databases: Path) -> None:
    for name in ("passwd", "group"):
        (databases / name).unlink()
    known = Accounts()
    assert known.find("root") == Account("root", 0, 0, "/")
    assert known.find("1000") == Account("1000", 1000, 1000, "/")
    assert known.own().uid == os.geteuid()


def test_a_fifo_in_place_of_the_file_does_not_block(databases: Path) -> None:
    (databases / "passwd").unlink()
    os.mkfifo(databases / "passwd")
    assert Accounts().find("user") is None
