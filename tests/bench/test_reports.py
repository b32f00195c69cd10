"""The three shapes of a report, from one run with known figures."""

from __future__ import annotations

import io
import json
from xml.etree import ElementTree

import pytest
from rich.console import Console
from tests.bench.cases import a_run

from hearth.bench import as_json, as_picture, as_table
from hearth.bench.as_table import times
from hearth.bench.run import Run

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def run() -> Run:
    return a_run()


def table_of(run: Run) -> str:
    console = Console(file=io.StringIO(), width=as_table.MIN_WIDTH, force_terminal=False)
    as_table.show(run, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def line_of(text: str, start: str) -> str:
    return next(line for line in text.splitlines() if line.startswith(start))


def test_the_table_shows_figures_ratio_goal_and_verdict_of_a_row(run: Run) -> None:
    words = line_of(table_of(run), "case.met").split()
    assert words == ["case.met", "2.00", "4.00", "4.00", "ms", "3", "1.00", "2.00×", "2.00×", "(≤", "3×)", "met"]


def test_the_table_counts_failed_samples_and_tells_the_first(run: Run) -> None:
    text = table_of(run)
    assert "2, 1 failed" in line_of(text, "case.missed ")
    assert "case.missed: first failed sample: SampleFailed: <no> & answer" in text


def test_the_table_tells_why_rows_have_no_figures_and_sums_up(run: Run) -> None:
    text = table_of(run)
    assert "case.skipped skipped: no images here" in text
    assert "case.failed failed: ValueError: broken" in text
    assert text.splitlines()[-1].strip() == "1 met, 1 missed, 1 failed, 1 skipped"


def test_the_table_begins_with_the_yardsticks(run: Run) -> None:
    text = table_of(run)
    assert line_of(text, "stick").split()[:6] == ["stick", "0.500", "ms", "0.750", "ms", "3"]
    assert text.index("stick") < text.index("case.met")


@pytest.mark.parametrize(
    ("value", "text"), [(0.0346, "0.035"), (1.3849, "1.38"), (27.83, "27.8"), (695.4, "695"), (1807.2, "1807")]
)
def test_figures_have_three_digits_that_count(value: float, text: str) -> None:
    assert as_table.figure(value) == text


def test_the_json_holds_all_that_the_table_shows(run: Run) -> None:
    document = json.loads(as_json.render(run))
    assert document["schema"] == as_json.SCHEMA
    assert document["quick"] is True
    assert document["summary"] == {"met": 1, "missed": 1, "failed": 1, "skipped": 1}
    assert document["yardsticks"][0]["figures"]["p50"] == pytest.approx(0.5)
    rows = {row["name"]: row for row in document["rows"]}
    assert rows["case.met"]["figures"] == pytest.approx({"n": 3, "failures": 0, "p50": 2.0, "p95": 4.0, "p99": 4.0})
    assert rows["case.met"]["reference"]["figures"]["p50"] == pytest.approx(1.0)
    assert rows["case.met"]["ratio"] == pytest.approx(2.0)
    [goal] = rows["case.missed"]["goals"]
    assert (goal["quantity"], goal["bound"], goal["limit"]) == ("rate_p50_mb_s", "at_least", 500)
    assert (goal["value"], goal["met"]) == (pytest.approx(100.0), False)
    assert rows["case.skipped"]["figures"] is None
    assert rows["case.skipped"]["reason"] == "no images here"


def test_the_picture_is_xml_with_a_bar_for_each_row_that_has_figures(run: Run) -> None:
    picture = ElementTree.fromstring(as_picture.render(run))
    assert picture.tag == f"{SVG}svg"
    bars = [rect for rect in picture.iter(f"{SVG}rect") if rect.find(f"{SVG}title") is not None]
    assert [bar.get("fill") for bar in bars] == [as_picture.MET, as_picture.MISSED]
    texts = [text.text or "" for text in picture.iter(f"{SVG}text")]
    assert "2 rows without figures" in texts
    assert "100 MB/s, goal ≥ 500 MB/s (5.0 times)" in texts


def test_bars_are_in_proportion_to_the_goal_and_end_at_the_edge(run: Run) -> None:
    picture = ElementTree.fromstring(as_picture.render(run))
    goal_line = picture.find(f"{SVG}line")
    assert goal_line is not None
    bars = [rect for rect in picture.iter(f"{SVG}rect") if rect.find(f"{SVG}title") is not None]
    start = float(bars[0].get("x", ""))
    full = float(goal_line.get("x1", "")) - start
    widths = [float(bar.get("width", "")) for bar in bars]
    assert widths == pytest.approx([full * 2 / 3, full * as_picture.MAX_SHARE], abs=0.1)


def test_ratios_far_below_one_keep_the_digits_that_count() -> None:
    assert [times(ratio) for ratio in (12.345, 1.0, 0.1, 0.0667, 0.00213)] == [
        "12.35×",
        "1.00×",
        "0.10×",
        "0.067×",
        "0.0021×",
    ]
