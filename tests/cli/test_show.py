"""Tables and words for people."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from hearth.cli.rich_table import show
from hearth.cli.show import age, harmless, plain_lines, size

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


@pytest.mark.parametrize(
    ("cell", "shown"),
    [("café 日本", "café 日本"), ("two\nlines", "two\nlines"), ("\x1b[31mred\r", "\\x1b[31mred\\r"), ("\x9b", "\\x9b")],
)
def test_nothing_in_a_cell_speaks_to_the_terminal(cell: str, shown: str) -> None:
    assert harmless(cell) == shown


@pytest.mark.parametrize("width", [20, 40, 80])
def test_on_a_narrow_terminal_an_id_stays_in_one_piece(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    columns = ("name", "id", "state", "heat", "image", "labels")
    cells = ("a-sandbox-of-a-long-name", "sb-0123456789ab", "running", "hot", "debian", "of=many, words=here, and=more")
    show(columns, [cells])
    out = capsys.readouterr().out.splitlines()
    assert all(cell in out[1] for cell in cells[:-1])
    assert "".join(line[-30:].strip() for line in out[1:]).replace(" ", "").endswith("and=more")


def test_without_rows_a_terminal_is_shown_the_columns(capsys: pytest.CaptureFixture[str]) -> None:
    show(("name", "state"), [])
    assert capsys.readouterr().out.split() == ["NAME", "STATE"]
