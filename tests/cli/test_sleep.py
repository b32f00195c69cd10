"""Sleep, copies and ends from the command line: with the development engine, whose machines do not sleep."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from tests.server.daemon import RunningDaemon, run_cli

from hearth.sdk.client import Client, Sandbox


def run(daemon: RunningDaemon, *words: str) -> tuple[int, str, str]:
    """Run a command and give status, stdout and stderr."""
    done = run_cli(daemon.environment, *words)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


@pytest.mark.parametrize(
    "words",
    [
        ("stop", "shared"),
        ("pause", "shared"),
        ("resume", "shared"),
        ("fork", "shared"),
        ("checkpoint", "shared", "before"),
        ("machine-template", "warm", "debian"),
    ],
)
def test_where_machines_do_not_sleep_that_is_said_and_nothing_changes(
    daemon: RunningDaemon, sandbox: Sandbox, words: tuple[str, ...]
) -> None:
    status, out, err = run(daemon, *words)
    assert (status, out) == (1, "")
    assert "sleep" in err
    assert run(daemon, "exec", "shared", "true") == (0, "", "")


def test_a_running_sandbox_is_started_by_doing_nothing(daemon: RunningDaemon, sandbox: Sandbox) -> None:
    assert run(daemon, "start", "shared") == (0, "shared\n", "")
    (view,) = json.loads(run(daemon, "start", "--force", "--json", "shared")[1])
    assert (view["name"], view["state"], view["heat"]) == ("shared", "running", "hot")


def test_one_of_several_that_fails_does_not_keep_the_others(daemon: RunningDaemon, sandbox: Sandbox) -> None:
    status, out, err = run(daemon, "start", "nosuch", "shared")
    assert (status, out, "nosuch" in err) == (1, "shared\n", True)
    status, out, err = run(daemon, "start", "--json", "nosuch", "shared")
    assert (status, [view["name"] for view in json.loads(out)]) == (1, ["shared"])


def test_a_sandbox_is_edited_without_being_touched(daemon: RunningDaemon, client: Client) -> None:
    with client.create(name="before", labels={"old": "1", "kept": "2"}) as sandbox:
        words = ("edit", "before", "--name", "after", "-l", "new=3", "--remove-label", "old", "--keep-hot")
        assert run(daemon, *words, "--ttl", "2h") == (0, "after\n", "")
        view = sandbox.refresh().view
        assert (view.name, view.labels, view.keep_hot) == ("after", {"kept": "2", "new": "3"}, True)
        assert view.expires_at is not None
        left = view.expires_at - datetime.now(UTC)
        assert timedelta(hours=1.9) < left <= timedelta(hours=2)
        changed = json.loads(run(daemon, "edit", "after", "--no-ttl", "--no-keep-hot", "--json")[1])
        assert (changed["ttl_s"], changed["expires_at"], changed["keep_hot"]) == (None, None, False)


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("edit", "shared"), 1, "--help"),
        (("edit", "shared", "--ttl", "soon"), 1, "2h"),
        (("edit", "shared", "--ttl", "0"), 1, "ttl_s"),
        (("edit", "shared", "--ttl", "1h", "--no-ttl"), 2, "--help"),
        (("edit", "shared", "--name", "Not-A-Label"), 1, "a-z"),
        (("fork", "shared", "-n", "0"), 1, "count"),
        (("snapshots", "paint"), 2, "--help"),
        (("snapshot", "create", "nosuch", "before"), 1, "nosuch"),
        (("snapshots", "inspect", "nosuch"), 1, "nosuch"),
        (("restore", "nosuch"), 1, "nosuch"),
        (("create", "--from", "nosuch"), 1, "nosuch"),
        (("create", "--from", "shared", "--cpus", "2"), 1, "cpus"),
        (("create", "--idle-stop", "never"), 1, "--idle-stop"),
        (("snapshots", "delete", "nosuch"), 1, "--yes"),
        (("snapshots", "delete", "--yes", "nosuch"), 1, "nosuch"),
        (("machine-template", "delete", "tpl-1"), 1, "--yes"),
        (("machine-template", "delete", "tpl-1", "-y"), 1, "tpl-1"),
        (("machine-template", "warm", "nosuch"), 1, "hearth"),
        (("image", "save", "shared"), 2, "--help"),
    ],
)
def test_what_cannot_be_done_is_told_with_the_next_step(
    daemon: RunningDaemon, sandbox: Sandbox, words: tuple[str, ...], status: int, said: str
) -> None:
    ended, out, err = run(daemon, *words)
    assert (ended, out) == (status, "")
    assert said in err
    assert "Traceback" not in err


def test_what_a_sandbox_is_created_with_is_shown(daemon: RunningDaemon, client: Client) -> None:
    words = ("--keep-hot", "--ttl", "1d", "--idle-pause", "5m", "--idle-stop", "1.5h", "--json")
    view = json.loads(run(daemon, "create", "sleepless", *words)[1])
    try:
        assert (view["keep_hot"], view["ttl_s"], view["idle_pause_s"], view["idle_stop_s"]) == (True, 86400, 300, 5400)
        out = run(daemon, "inspect", "sleepless")[1]
        assert "never" in out and "5400 s" in out and "expires" in out
    finally:
        client.destroy("sleepless")


def test_why_a_machine_ended_is_listed_and_shown_and_remembered(daemon: RunningDaemon, client: Client) -> None:
    sandbox = client.create(name="short-lived")
    status, _, err = run(daemon, "exec", "short-lived", "sh", "-c", "kill -9 $PPID")
    assert (status, "machine ended" in err) == (125, True)
    (listed,) = [each for each in json.loads(run(daemon, "list", "--json")[1]) if each["id"] == sandbox.id]
    cause = listed["exit_cause"]
    assert (listed["state"], listed["heat"]) == ("failed", "cold")
    heading, *rows = run(daemon, "list")[1].splitlines()
    assert {"HEAT", "MEMORY", "CAUSE"} <= set(heading.split())
    assert any("short-lived" in row and cause["kind"] in row for row in rows)
    assert cause["detail"] in run(daemon, "inspect", "short-lived")[1]

    sandbox.destroy()
    out = run(daemon, "inspect", "short-lived")[1]
    assert "destroyed" in out and cause["detail"] in out
    remembered = json.loads(run(daemon, "inspect", "--json", sandbox.id)[1])
    assert (remembered["sandbox_id"], remembered["exit_cause"]["kind"]) == (sandbox.id, cause["kind"])
    endings = json.loads(run(daemon, "endings", "--json")[1])
    assert sandbox.id in [each["sandbox_id"] for each in endings]
    assert "short-lived" in run(daemon, "endings")[1]


def test_empty_lists_have_their_headings_and_json_is_an_empty_list(daemon: RunningDaemon) -> None:
    for words in (
        ("snapshots",),
        ("snapshots", "list"),
        ("snapshots", "tree"),
        ("machine-template",),
        ("machine-templates", "list"),
        ("template",),
        ("templates", "list"),
    ):
        status, out, _ = run(daemon, *words)
        assert (status, "AGE" in out.split()) == (0, True)
        assert json.loads(run(daemon, *words, "--json")[1]) == []
    assert json.loads(run(daemon, "snapshots", "--json", "tree")[1]) == []
