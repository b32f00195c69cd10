"""Templates, files and init over the daemon's real socket, with real agents on this host."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from tests.agent.conftest import is_running, wait_until
from tests.server.daemon import RunningDaemon
from tests.server.event_stream import following
from tests.server.test_app import ask
from tests.server.test_lives import send

from hearth.control.user_templates import MAX_TEMPLATE_BYTES

SANDBOXES = "/api/v1/sandboxes"
TEMPLATES = "/api/v1/templates"


@pytest.fixture(autouse=True)
def clean(daemon: RunningDaemon) -> Iterator[None]:
    """No template and none of our sandboxes is left to the next test."""
    yield
    for path in (TEMPLATES, f"{SANDBOXES}?label=test=templates"):
        for each in send(daemon, "GET", path)[1]["items"]:
            assert send(daemon, "DELETE", f"{path.partition('?')[0]}/{each['id']}")[0] == 204


def create(daemon: RunningDaemon, **body: object) -> tuple[int, Any]:
    return send(daemon, "POST", SANDBOXES, {"labels": {"test": "templates"}, **body})


def shell(daemon: RunningDaemon, name: str, line: str) -> str:
    status, result = send(daemon, "POST", f"{SANDBOXES}/{name}/exec", {"cmd": ["sh", "-c", line]})
    assert status == 200, result
    return str(result["stdout"])


def test_files_are_there_before_init_runs(daemon: RunningDaemon, tmp_path: Path) -> None:
    script, data, note = tmp_path / "deep" / "er" / "script", tmp_path / "data", tmp_path / "note"
    status, made = create(
        daemon,
        name="prepared",
        env={"GREETING": "hello"},
        files=[
            {"guest_path": str(script), "content": f"#!/bin/sh\necho $GREETING $1 >> {note}\n", "mode": "0755"},
            {"guest_path": str(data), "content": base64.b64encode(b"\x00\xff").decode(), "encoding": "base64"},
        ],
        init=[f"{script} first", [str(script), "second $HOME"]],
    )
    assert status == 201, made
    assert note.read_text() == "hello first\nhello second $HOME\n"
    assert (script.stat().st_mode & 0o7777, data.stat().st_mode & 0o7777) == (0o755, 0o644)
    assert data.read_bytes() == b"\x00\xff"
    names = [timing["name"] for timing in made["timings"]]
    assert names[-2:] == ["files", "init"]
    status, again = create(daemon, name="prepared", init=[f"echo again >> {note}"])
    assert (status, again["id"]) == (200, made["id"])
    assert "again" not in note.read_text()


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (
            {"init": ["true", "echo early; echo late >&2; exit 3", "true"]},
            ["init[1]", "exited with 3", "early", "late"],
        ),
        ({"init": [["/no/such/program"]]}, ["init[0]", "could not be started"]),
        ({"init": ["echo begun; sleep 1000"], "init_timeout_s": 1}, ["init[0]", "longer than 1 s", "begun"]),
        ({"init": ["head -c 100000 /dev/zero | tr '\\0' x; echo; echo the end; exit 1"]}, ["the end"]),
    ],
)
def test_a_command_of_init_that_fails_leaves_nothing(
    daemon: RunningDaemon, body: dict[str, object], words: list[str]
) -> None:
    status, problem = create(daemon, name="failing", **body)
    assert (status, problem["code"]) == (422, "init_failed")
    assert [word for word in words if word not in problem["details"]] == []
    assert len(problem["details"]) < 6000
    assert send(daemon, "GET", f"{SANDBOXES}/failing")[0] == 404
    assert create(daemon, name="failing")[0] == 201


def test_a_sandbox_destroyed_while_its_init_runs_leaves_nothing(daemon: RunningDaemon, tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    os.mkfifo(begun)
    answers: list[tuple[int, Any]] = []
    waiting = Thread(
        target=lambda: answers.append(create(daemon, name="waiting", init=[f"echo $$ > {begun}; exec sleep 1000"]))
    )
    waiting.start()
    pid = int(begun.read_text())
    assert send(daemon, "GET", f"{SANDBOXES}/waiting")[1]["state"] == "creating"
    assert send(daemon, "DELETE", f"{SANDBOXES}/waiting")[0] == 204
    waiting.join(60)
    assert [(status, problem["code"]) for status, problem in answers] == [(409, "cancelled")]
    wait_until(lambda: not is_running(pid), "its init has died with it")
    assert send(daemon, "GET", f"{SANDBOXES}/waiting")[0] == 404


def test_what_a_command_writes_is_for_its_user_and_not_for_the_log(daemon: RunningDaemon) -> None:
    status, problem = create(daemon, name="talking", init=["echo canary-$((40+2)); exit 1"])
    assert status == 422
    assert "canary-42" in problem["details"]
    assert "canary-42" not in daemon.log_file.read_text()


@pytest.mark.parametrize(
    ("files", "field"),
    [
        ([{"guest_path": "relative", "content": ""}], "files[0].guest_path"),
        ([{"guest_path": "/dev/null/x", "content": ""}], "files[0].guest_path"),
        ([{"guest_path": "/tmp", "content": ""}], "files[0].guest_path"),
        ([{"guest_path": "/a/../b", "content": ""}], "files[0].guest_path"),
        ([{"guest_path": "/a", "content": "%", "encoding": "base64"}], "files[0].content"),
        ([{"guest_path": "/a", "content": "", "mode": "rw"}], "files[0].mode"),
        ([{"guest_path": "/a", "content": "", "owner": "x"}], "files[0].owner"),
    ],
)
def test_a_file_that_cannot_be_is_named(daemon: RunningDaemon, files: list[object], field: str) -> None:
    status, problem = create(daemon, name="refused", files=files)
    assert (status, problem["code"]) == (400, "invalid")
    assert field in problem["details"]
    assert send(daemon, "GET", f"{SANDBOXES}/refused")[0] == 404


def test_a_machine_without_a_disk_of_its_own_has_no_size(daemon: RunningDaemon) -> None:
    status, problem = create(daemon, name="sized", disk_size_mb=8192)
    assert (status, "disk_size_mb" in problem["resolution"]) == (409, True)
    assert create(daemon, name="sized", disk_size_mb=0)[0] == 400
    assert create(daemon, name="sized", disk_size_mb=1 << 40)[0] == 400


def test_a_template_is_kept_shown_changed_and_deleted(daemon: RunningDaemon) -> None:
    said = {
        "name": "web",
        "cpus": 1,
        "env": {"TOKEN": "hidden-value", "A": "b"},
        "labels": {"team": "search"},
        "files": [{"guest_path": "/etc/x", "content": "hidden-content", "mode": "0600"}],
        "init": ["true", ["echo", "a"]],
        "ttl_s": 3600,
        "keep_hot": False,
    }
    status, made = send(daemon, "POST", TEMPLATES, said)
    assert status == 201, made
    assert (made["env_names"], made["cpus"], made["keep_hot"]) == (["A", "TOKEN"], 1, False)
    assert made["files"] == [{"guest_path": "/etc/x", "size_bytes": 14, "mode": "0600"}]
    assert (made["init"], made["ttl_s"], made["memory_mb"]) == (["true", ["echo", "a"]], 3600, None)
    assert send(daemon, "GET", f"{TEMPLATES}/web") == (200, made)
    status, changed = send(daemon, "PATCH", f"{TEMPLATES}/{made['id']}", {"name": "site", "ttl_s": None, "init": []})
    assert (status, changed["name"], changed["ttl_s"], changed["init"]) == (200, "site", None, [])
    assert (changed["env_names"], changed["created_at"]) == (["A", "TOKEN"], made["created_at"])
    status, page = send(daemon, "GET", TEMPLATES)
    assert (status, page["items"]) == (200, [changed])
    assert "hidden" not in json.dumps(page)
    assert send(daemon, "DELETE", f"{TEMPLATES}/site")[0] == 204
    assert send(daemon, "GET", f"{TEMPLATES}/{made['id']}")[0] == 404
    path = f"/api/v1/events?type=template&subject={made['id']}&after=oldest&follow=false"
    with following(daemon, path) as stream:
        told = [event.kind for event in stream]
    assert told == ["template.created", "template.changed", "template.deleted"]
    _, audit = send(daemon, "GET", "/api/v1/audit?action=create_template")
    assert made["id"] in [entry["object"] for entry in audit["items"]]


@pytest.mark.parametrize(
    ("said", "status"),
    [
        ({"name": "Web"}, 400),
        ({}, 400),
        ({"name": "t", "from": "other"}, 400),
        ({"name": "t", "template_id": "other"}, 400),
        ({"name": "t", "cpus": 0}, 400),
        ({"name": "t", "memory_mb": 1 << 20}, 400),
        ({"name": "t", "image": "no-such"}, 404),
        ({"name": "t", "secrets": [{"name": "NO_SUCH"}]}, 404),
        ({"name": "t", "net_policy": {"allow_cidrs": ["x"]}}, 400),
        ({"name": "t", "files": [{"guest_path": "/a/../b", "content": ""}]}, 400),
        ({"name": "t", "init": ["true"], "init_timeout_s": 0}, 400),
        ({"name": "t", "disk_size_mb": 8192}, 409),
        ({"name": "t", "env": {"A": "x" * (MAX_TEMPLATE_BYTES + 1)}}, 413),
    ],
)
def test_a_template_is_checked_as_a_sandbox_is(daemon: RunningDaemon, said: dict[str, object], status: int) -> None:
    answered, problem = send(daemon, "POST", TEMPLATES, said)
    assert answered == status, problem
    assert send(daemon, "GET", f"{TEMPLATES}/t")[0] == 404


def test_a_request_fills_its_gaps_with_its_template(daemon: RunningDaemon, tmp_path: Path) -> None:
    note = tmp_path / "note"
    template = {
        "name": "web",
        "memory_mb": 512,
        "env": {"A": "template", "B": "template"},
        "labels": {"test": "templates", "team": "search"},
        "ttl_s": 3600,
        "idle_stop_s": 900,
        "init": [f"echo $A $B > {note}"],
    }
    assert send(daemon, "POST", TEMPLATES, template)[0] == 201
    said = {"template_id": "web", "env": {"B": "mine"}, "labels": {"own": "yes"}}
    status, made = send(daemon, "POST", SANDBOXES, {"name": "filled", **said, "ttl_s": None})
    assert status == 201, made
    assert (made["memory_mb"], made["ttl_s"], made["idle_stop_s"]) == (512, None, 900)
    assert made["labels"] == {"test": "templates", "team": "search", "own": "yes"}
    assert note.read_text() == "template mine\n"
    assert shell(daemon, "filled", "echo $A $B") == "template mine\n"
    note.unlink()
    status, other = send(daemon, "POST", SANDBOXES, {"name": "other", **said, "init": [], "memory_mb": 128})
    assert (status, other["memory_mb"], other["ttl_s"], note.exists()) == (201, 128, 3600, False)
    assert made["template_id"] == other["template_id"] == send(daemon, "GET", f"{TEMPLATES}/web")[1]["id"]
    assert send(daemon, "DELETE", f"{TEMPLATES}/web")[0] == 204
    assert shell(daemon, "filled", "echo alive") == "alive\n"
    status, problem = send(daemon, "POST", SANDBOXES, {"name": "late", **said})
    assert (status, problem["code"]) == (404, "not_found")


def test_template_and_source_exclude_each_other(daemon: RunningDaemon) -> None:
    assert send(daemon, "POST", TEMPLATES, {"name": "web"})[0] == 201
    status, problem = create(daemon, name="both", template_id="web", **{"from": "shared"})
    assert (status, "template_id" in problem["details"]) == (400, True)


def test_what_a_template_and_a_request_say_must_fit_together(daemon: RunningDaemon) -> None:
    labels = {f"l{number}": "x" for number in range(40)}
    assert send(daemon, "POST", TEMPLATES, {"name": "web", "labels": labels})[0] == 201
    more = {f"m{number}": "x" for number in range(40)}
    status, problem = send(daemon, "POST", SANDBOXES, {"name": "many", "template_id": "web", "labels": more})
    assert (status, problem["code"], "labels" in problem["details"]) == (400, "invalid", True)


def test_names_are_unique_and_a_key_repeats_nothing(daemon: RunningDaemon) -> None:
    body = json.dumps({"name": "web"}).encode()
    first = ask(daemon, "POST", TEMPLATES, body, token=daemon.token, Idempotency_Key="template-1")
    again = ask(daemon, "POST", TEMPLATES, body, token=daemon.token, Idempotency_Key="template-1")
    assert (first[0], again[0], again[2]) == (201, 201, first[2])
    status, problem = send(daemon, "POST", TEMPLATES, {"name": "web"})
    assert (status, problem["code"]) == (409, "conflict")
    assert send(daemon, "POST", TEMPLATES, {"name": "other"})[0] == 201
    assert send(daemon, "PATCH", f"{TEMPLATES}/other", {"name": "web"})[0] == 409
    status, page = send(daemon, "GET", f"{TEMPLATES}?limit=1")
    status, rest = send(daemon, "GET", f"{TEMPLATES}?limit=1&cursor={page['next_cursor']}")
    assert [each["name"] for each in (*page["items"], *rest["items"])] == ["web", "other"]
    assert send(daemon, "GET", f"{TEMPLATES}?limit=1000")[0] == 400
