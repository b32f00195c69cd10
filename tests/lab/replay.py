"""What pytest tells in the lab, written down there and told again here; in the lab this is a plugin."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

REPORTS = "LAB_REPORTS"
"""Names the file to write to, a JSON document a line."""


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Write down how a phase of a test went; only a lab's own run names a file."""
    if (path := os.environ.get(REPORTS)) is None:
        return
    if report.when == "call" or report.outcome != "passed":
        told = {"test": report.nodeid, "outcome": report.outcome, "when": report.when, "text": _text(report)}
        with Path(path).open("a") as file:
            file.write(json.dumps({**told, "duration_s": round(report.duration, 3)}) + "\n")


def _text(report: pytest.TestReport) -> str:
    if report.skipped and isinstance(report.longrepr, tuple):
        return report.longrepr[2]
    return f"{report.longreprtext}\n{report.capstdout}{report.capstderr}".strip() if report.failed else ""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How one test went in the lab; of a failed one ``text`` is the whole report, of a skipped one the reason."""

    test: str
    outcome: str
    when: str
    text: str
    duration_s: float


@dataclass(frozen=True, kw_only=True)
class Outcomes:
    """How a run in the lab went; ``status`` is pytest's own, ``output`` what it printed."""

    tests: Sequence[Outcome]
    status: int
    output: str

    @property
    def passed(self) -> list[Outcome]:
        return [each for each in self.tests if each.outcome == "passed"]

    @property
    def skipped(self) -> list[Outcome]:
        return [each for each in self.tests if each.outcome == "skipped"]

    @property
    def failed(self) -> list[Outcome]:
        return [each for each in self.tests if each.outcome == "failed"]

    def retell(self, subtests: pytest.Subtests) -> None:
        """Let each test count as one of the host's, with its own output where it failed."""
        for each in self.tests:
            with subtests.test(each.test):
                if each.outcome == "skipped":
                    pytest.skip(each.text)
                if each.outcome == "failed":
                    pytest.fail(f"in the lab ({each.when}):\n{each.text}", pytrace=False)
        self.check()

    def check(self) -> None:
        """Fail unless tests ran there and all passed or were skipped."""
        told = f"{len(self.passed)} passed, {len(self.skipped)} skipped, {len(self.failed)} failed in the lab"
        print(told)
        if self.failed:
            pytest.fail("\n".join([told, *(f"{each.test} ({each.when}):\n{each.text}" for each in self.failed)]), False)
        if self.status != 0 or not self.passed:
            pytest.fail(f"{told}; pytest's status there is {self.status}:\n{self.output[-4000:]}", pytrace=False)


def read(lines: str, status: int, output: str) -> Outcomes:
    """Read what the plugin wrote."""
    return Outcomes(tests=[Outcome(**json.loads(line)) for line in lines.splitlines()], status=status, output=output)
