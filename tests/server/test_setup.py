"""`setup` tells its progress as events; `doctor` its findings as one report: both read by the CLI."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from tests.server.daemon import RunningDaemon, run_cli

from hearth.errors import HostUnfit
from hearth.image.progress import Progress
from hearth.server.setup import EventPrinter


def events(printed: pytest.CaptureFixture[bytes]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in printed.readouterr().out.splitlines()]


def at(fraction: float | None, message: str = "", stage: str = "kernel") -> Progress:
    return Progress(stage=stage, fraction=fraction, message=message)


def test_a_stage_starts_once_and_ends_with_its_duration(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    printer = EventPrinter()
    for progress in (at(None, "downloading"), at(0.5), at(1.0, "published")):
        printer.progress(progress)

    told = events(capsysbinary)
    assert [(event["step"], event["state"]) for event in (told[0], told[-1])] == [
        ("kernel", "started"),
        ("kernel", "done"),
    ]
    assert told[-1]["message"] == "published"
    assert told[-1]["duration_s"] >= 0


def test_a_stage_that_is_done_at_once_is_started_and_done(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    EventPrinter().progress(at(1.0, "there already"))

    assert [event["state"] for event in events(capsysbinary)] == ["started", "done"]


def test_many_steps_of_progress_become_few_events(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    printer = EventPrinter()
    for number in range(10_000):
        printer.progress(at(number / 10_000))

    assert len(events(capsysbinary)) < 100


def test_a_failure_names_the_stage_under_way_and_what_to_do(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    printer = EventPrinter()
    printer.progress(at(0.1, stage="agent"))
    printer.failed(HostUnfit("mke2fs is not installed", details="x", resolution="apt-get install e2fsprogs"))

    last = events(capsysbinary)[-1]
    assert (last["step"], last["state"], last["resolution"]) == ("agent", "failed", "apt-get install e2fsprogs")
    assert "mke2fs" in last["message"]


def test_the_doctor_examines_this_host_without_a_daemon(daemon: RunningDaemon) -> None:
    done = run_cli(daemon.environment, "doctor", "--json")

    checks = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    assert {"accelerator", "privileges", "disk space", "reflink", "control groups", "memory"} <= set(checks)
    assert all(check["finding"] and check["resolution"] for check in checks.values())
    assert done.returncode == int(any(check["status"] == "failed" for check in checks.values()))


def test_the_doctor_speaks_to_people_in_lines(daemon: RunningDaemon) -> None:
    done = run_cli(daemon.environment, "doctor")

    assert b"accelerator" in done.stdout
    assert not done.stdout.startswith(b"{")


@pytest.mark.root
def test_who_has_no_right_to_the_data_directory_is_told_which_and_what_to_do(daemon: RunningDaemon) -> None:
    words = [
        "-c",
        "import os, sys; from hearth.server.__main__ import main; os.setuid(65534); sys.exit(main(['setup']))",
    ]
    done = subprocess.run([sys.executable, *words], env=daemon.environment, capture_output=True, check=False)

    (event,) = [json.loads(line) for line in done.stdout.splitlines()]
    assert (done.returncode, event["state"]) == (1, "failed")
    assert f"HEARTH_DATA {daemon.data.root}: Permission denied" in event["message"]
    assert event["resolution"] == "choose a directory that this user may write"
