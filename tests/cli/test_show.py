"""Tables and words for people."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from hearth.cli.show import age, plain_lines, size

NOW = datetime(2026, 1, 2, tzinfo=UTC)


@pytest.mark.parametrize(
    ("ago_s", "said"), [(-5, "0s"), (0, "0s"), (59, "59s"), (60, "1m"), (3599, "59m"), (7200, "2h"), (864000, "10d")]
)
def test_an_age_is_said_in_its_largest_unit(ago_s: int, said: str) -> None:
    assert age(NOW - timedelta(seconds=ago_s), NOW) == said


@pytest.mark.parametrize(
    ("count", "said"), [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (7_500_000, "7.2 MiB"), (2**41, "2048.0 GiB")]
)
def test_a_size_is_said_in_its_largest_unit(count: int, said: str) -> None:
    assert size(count) == said


def test_columns_are_aligned_and_lines_end_without_blanks() -> None:
    assert plain_lines(("name", "state"), [("web", "running"), ("longer", "")]) == [
        "NAME    STATE",
        "web     running",
        "longer",
    ]


def test_a_table_without_rows_still_names_its_columns() -> None:
    assert plain_lines(("name", "state"), []) == ["NAME  STATE"]
