"""Outputs that are closed or full: no byte goes astray, and what fails is said without a traceback."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from tests.server.daemon import RunningDaemon

from hearth.sdk.client import Sandbox

END_S = 60


def run_in_shell(daemon: RunningDaemon, line: str) -> subprocess.CompletedProcess[str]:
    """Run a line of shell in which ``hearth`` is the command line; the shell opens and closes its descriptors."""
    script = f'hearth() {{ "$PYTHON" -m hearth.cli "$@"; }}\n{line}'
    environment = {**daemon.environment, "PYTHON": sys.executable}
    return subprocess.run(
        ["sh", "-c", script], env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=END_S
    )


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_closed_descriptors_are_no_place_for_the_connection(
    daemon: RunningDaemon, sandbox: Sandbox, closed: str
) -> None:
    done = run_in_shell(daemon, f"hearth exec shared -- sh -c 'echo out; echo err >&2; exit 3' {closed}")
    assert done.returncode == 3
    assert done.stdout == ("" if ">&-" in closed.replace("2>&-", "") else "out\n")
    assert done.stderr == ("" if "2>&-" in closed else "err\n")


@pytest.mark.parametrize("words", ["list", "list --json", "--help", "version"])
def test_a_closed_stdout_is_as_good_as_dev_null(daemon: RunningDaemon, words: str) -> None:
    done = run_in_shell(daemon, f"hearth {words} >&-")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("words", "status"),
    [
        ("list", 1),
        ("version", 1),
        ("--help", 1),
        ("exec shared echo x", 125),
        ("exec --json shared echo x", 125),
    ],
)
def test_output_that_cannot_be_written_is_said(
    daemon: RunningDaemon, sandbox: Sandbox, words: str, status: int
) -> None:
    done = run_in_shell(daemon, f"hearth {words} >/dev/full")
    assert done.returncode == status
    if "--json" in words:
        told = json.loads(done.stderr)
        assert (told["error"], told["details"]) == ("cannot write the output", "No space left on device")
    else:
        assert done.stderr.splitlines()[:2] == ["hearth: cannot write the output", "  No space left on device"]
    assert "Traceback" not in done.stderr
    assert "Exception" not in done.stderr


def test_an_error_that_cannot_be_told_keeps_its_status(daemon: RunningDaemon) -> None:
    assert run_in_shell(daemon, "hearth inspect nosuch 2>/dev/full").returncode == 1
    assert run_in_shell(daemon, "hearth exec nosuch true >/dev/full 2>/dev/full").returncode == 125
