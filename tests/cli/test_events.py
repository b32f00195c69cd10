"""`hearth events` and `hearth jobs` as a user types them."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime

from tests.cli.test_sleep import run
from tests.server.daemon import RunningDaemon

from hearth.api.event_schemas import EventView
from hearth.cli.commands.events import line_of
from hearth.sdk.client import Client


def test_what_happened_is_shown_one_line_each(daemon: RunningDaemon, client: Client) -> None:
    with client.create(name="shown") as sandbox:
        status, text, _ = run(daemon, "events", "shown")
        assert status == 0
        assert text.splitlines()[0].split()[1:4] == ["sandbox.creating", "shown", sandbox.id]
        lines = [
            json.loads(line) for line in run(daemon, "events", "shown", "--type", "sandbox", "--json")[1].splitlines()
        ]
        assert {line["name"] for line in lines} == {"shown"}
        after = run(daemon, "events", "shown", "--after", lines[-1]["id"])
        assert after == (0, "", "")


def test_follow_goes_on_until_it_is_interrupted(daemon: RunningDaemon, client: Client) -> None:
    words = [sys.executable, "-m", "hearth.cli", "events", "--follow", "--type", "sandbox.destroyed"]
    with subprocess.Popen(words, env=daemon.environment, stdout=subprocess.PIPE, text=True) as following:
        try:
            client.create(name="followed").destroy()
            assert following.stdout is not None
            while "followed" not in (line := following.stdout.readline()):
                assert line, "the stream ended"
        finally:
            following.terminate()


def test_jobs_are_listed_shown_and_not_cancelled_when_over(daemon: RunningDaemon, client: Client) -> None:
    with client.create(name="worked") as sandbox:
        (row,) = [line.split() for line in run(daemon, "jobs")[1].splitlines() if sandbox.id in line]
        assert row[1:6] == ["sandbox.create", sandbox.id, "completed", "identity", "100"]
        listed = json.loads(run(daemon, "jobs", "list", "--status", "completed", "--json")[1])
        assert row[0] in {job["job_id"] for job in listed}
        assert run(daemon, "jobs", "list", "--status", "failed", "--json")[1].strip() in ("[]", "[ ]")
        assert json.loads(run(daemon, "jobs", "inspect", row[0], "--json")[1])["subject"] == sandbox.id
        status, _, told = run(daemon, "jobs", "cancel", row[0])
        assert (status, "ended already" in told) == (1, True)


def test_a_name_cannot_write_to_the_terminal() -> None:
    event = EventView(
        id="run.1", type="sandbox.hot", at=datetime.now(UTC), subject="sb-1", name="\x1b[31mred", data={"a": "b\nc"}
    )
    assert line_of(event).isprintable()
