"""The table of rows: names, goals, and how they are chosen."""

from __future__ import annotations

import pytest

from hearth.bench.table import ROWS, choose
from hearth.errors import InvalidInput


def test_names_are_unique_and_every_row_has_a_goal() -> None:
    names = [row.name for row in ROWS]
    assert len(set(names)) == len(names)
    assert all(row.goals for row in ROWS)


def test_without_names_all_rows_are_chosen_but_those_that_take_minutes() -> None:
    assert choose([], full=True) == list(ROWS)
    assert choose([]) == [row for row in ROWS if not row.is_long] != list(ROWS)


def test_a_row_that_takes_minutes_is_measured_when_it_is_named() -> None:
    assert [row.name for row in choose(["vm.hang"])] == ["vm.hang"]


def test_rows_are_measured_in_the_order_of_the_table_and_once() -> None:
    assert [row.name for row in choose(["agent.exec", "wire.frames", "agent.exec"])] == ["wire.frames", "agent.exec"]


def test_an_unknown_row_names_the_known_ones() -> None:
    with pytest.raises(InvalidInput) as caught:
        choose(["agent.exce"])
    assert "agent.exce" in caught.value.details
    assert all(row.name in caught.value.resolution for row in ROWS)
