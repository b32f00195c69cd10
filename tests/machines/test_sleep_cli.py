"""The whole life of a real machine from the command line: sleep, wake, copies, a checkpoint, the end."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest
from tests.machines.test_first_light import vmm_of, vmms_of
from tests.server.daemon import RunningDaemon, run_cli

from hearth.errors import Code
from hearth.sdk import SandboxDied
from hearth.sdk.client import Client

pytestmark = pytest.mark.slow

TIMEOUT_S = 180
MARK = ("sh", "-c", "echo in memory > /dev/shm/mark && cat /dev/shm/mark")
READ = ("cat", "/dev/shm/mark")


@pytest.fixture
def cleaned(house: RunningDaemon) -> Iterator[RunningDaemon]:
    """A daemon whose checkpoints, and sandboxes of ours, are gone in the end."""
    yield house
    with house.client() as client:
        for sandbox in client.list({"test": "sleep-cli"}):
            sandbox.destroy()
        for snapshot in client.snapshots():
            client.delete_snapshot(snapshot.id)


def hearth(house: RunningDaemon, *words: str) -> str:
    """Run a command that must succeed and give what it printed."""
    done = run_cli(house.environment, *words, timeout_s=TIMEOUT_S)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


def listed(house: RunningDaemon, name: str) -> tuple[str, str]:
    """Give state and heat of a sandbox as the list shows them."""
    views: list[dict[str, Any]] = json.loads(hearth(house, "list", "--json"))
    (view,) = [view for view in views if view["name"] == name]
    return view["state"], view["heat"]


def test_a_sandbox_sleeps_wakes_multiplies_and_ends(cleaned: RunningDaemon) -> None:
    house = cleaned
    hearth(house, "create", "nap", "--label", "test=sleep-cli")
    assert hearth(house, "exec", "nap", "--", *MARK) == "in memory\n"
    assert listed(house, "nap") == ("running", "hot")

    assert hearth(house, "pause", "nap") == "nap\n"
    assert listed(house, "nap") == ("running", "warm")
    assert hearth(house, "exec", "nap", "--", *READ) == "in memory\n"
    assert listed(house, "nap") == ("running", "hot")

    assert hearth(house, "stop", "nap") == "nap\n"
    assert listed(house, "nap") == ("stopped", "cold")
    view = json.loads(hearth(house, "inspect", "nap", "--json"))
    assert (vmms_of(view["id"]), view["stopped_at"] is not None) == ([], True)
    assert hearth(house, "exec", "nap", "--", *READ) == "in memory\n"
    assert listed(house, "nap") == ("running", "hot")

    twins = hearth(house, "fork", "nap", "-n", "2", "--name", "twin").split()
    assert twins == ["twin-1", "twin-2"]
    assert [hearth(house, "exec", twin, "--", *READ) for twin in twins] == ["in memory\n"] * 2
    parents = {json.loads(hearth(house, "inspect", twin, "--json"))["parent"] for twin in twins}
    assert parents == {view["id"]}

    assert hearth(house, "checkpoint", "nap", "before") == "before\n"
    hearth(house, "exec", "nap", "rm", "/dev/shm/mark")
    assert hearth(house, "restore", "before", "--name", "again") == "again\n"
    assert hearth(house, "exec", "again", "--", *READ) == "in memory\n"
    hearth(house, "create", "third", "--from", "before", "--label", "test=sleep-cli")
    assert hearth(house, "exec", "third", "--", *READ) == "in memory\n"
    hearth(house, "snapshot", "create", "again", "after")
    assert "└─ after" in hearth(house, "snapshots", "tree")
    hearth(house, "edit", "again", "--label", "test=sleep-cli")

    hearth(house, "destroy", "--yes", "nap", "again", "third", *twins)
    hearth(house, "snapshots", "delete", "--yes", "before", "after")
    assert json.loads(hearth(house, "snapshots", "--json")) == []
    assert "user" in hearth(house, "inspect", "nap")
    endings = json.loads(hearth(house, "endings", "--json"))
    assert {"nap", "again", *twins} <= {ending["name"] for ending in endings}
    assert json.loads(hearth(house, "machine-template", "list", "--json")) != []


def test_a_vmm_that_is_killed_is_told_as_the_cause_of_the_failure(house: RunningDaemon, client: Client) -> None:
    with client.create() as sandbox:
        with pytest.raises(SandboxDied) as died, sandbox.stream(["sh", "-c", "echo up; sleep 600"]) as running:
            for _ in running:
                os.kill(vmm_of(sandbox), signal.SIGKILL)
        assert (died.value.cause.kind, died.value.code) == ("killed", Code.GUEST_FAILED)
        assert "SIGKILL" in died.value.details
        shown = json.loads(hearth(house, "inspect", sandbox.name, "--json"))
        assert (shown["state"], shown["exit_cause"]["kind"]) == ("failed", "killed")
