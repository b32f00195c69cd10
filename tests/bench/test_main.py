"""``hearth bench`` as a user's shell and a program start it: a real process, a real agent."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hearth.bench.table import ROWS

BENCH = [sys.executable, "-m", "hearth.bench"]


END_S = 240.0


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*BENCH, *arguments], capture_output=True, text=True, timeout=END_S, stdin=subprocess.DEVNULL)


def test_a_quick_run_of_two_rows_gives_json(tmp_path: Path) -> None:
    picture = tmp_path / "bench.svg"
    done = bench("--quick", "wire.frames", "agent.exec", "--json", "-", "--picture", str(picture))
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert [row["name"] for row in document["rows"]] == ["wire.frames", "agent.exec"]
    for row in document["rows"]:
        assert row["verdict"] in ("met", "missed"), row
        assert row["figures"]["n"] >= 50
        assert row["figures"]["failures"] == 0
        assert 0 < row["figures"]["p50"] <= row["figures"]["p95"] <= row["figures"]["p99"]
        assert row["ratio"] > 0
    spawn = document["yardsticks"][0]
    assert spawn["name"] == "spawn"
    assert spawn["figures"]["p50"] > 0.05
    assert "agent.exec" in picture.read_text()


def test_json_to_a_file_leaves_the_table_on_stdout(tmp_path: Path) -> None:
    report = tmp_path / "bench.json"
    done = bench("--quick", "wire.frames", "--json", str(report))
    assert done.returncode == 0, done.stderr
    assert "wire.frames" in done.stdout
    assert json.loads(report.read_text())["summary"]["failed"] == 0


def test_an_unknown_row_ends_with_status_2_and_names_the_known_ones() -> None:
    done = bench("agent.exce")
    assert done.returncode == 2
    assert "agent.exce" in done.stderr
    assert all(row.name in done.stderr for row in ROWS)
    assert done.stdout == ""


def test_the_list_shows_every_row_and_measures_nothing() -> None:
    done = bench("--list")
    assert done.returncode == 0
    assert [line.split()[0] for line in done.stdout.splitlines()] == [row.name for row in ROWS]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_shows_what_it_has_and_leaves_nothing_running(number: signal.Signals) -> None:
    with subprocess.Popen(
        [*BENCH, "wire.frames", "agent.exec", "--json", "-"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        try:
            for line in process.stderr:
                if "agent echo" in line:  # an agent is running, or about to
                    break
            os.kill(process.pid, number)
            output, _ = process.communicate(timeout=END_S)
        finally:
            process.kill()
    assert process.returncode == 130
    assert "agent.exec" not in [row["name"] for row in json.loads(output)["rows"]]
