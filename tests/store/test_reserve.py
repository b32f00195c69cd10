"""Room that is kept, given up when the disk is full, and taken again."""

from __future__ import annotations

from pathlib import Path

from hearth.store.reserve import RESERVE_BYTES, Reserve


def test_it_takes_its_room_and_gives_it_up_once(tmp_path: Path) -> None:
    path = tmp_path / "reserve"
    reserve = Reserve(path)
    reserve.take()
    assert path.stat().st_blocks * 512 >= RESERVE_BYTES
    assert (reserve.give(), path.exists()) == (True, False)
    assert not reserve.give()


def test_it_is_not_taken_again_at_once(tmp_path: Path) -> None:
    reserve = Reserve(tmp_path / "reserve")
    reserve.take()
    reserve.give()
    reserve.take()
    assert not (tmp_path / "reserve").exists()


def test_one_that_cannot_be_had_makes_no_room(tmp_path: Path) -> None:
    reserve = Reserve(tmp_path / "missing" / "reserve")
    reserve.take()
    assert not reserve.give()
