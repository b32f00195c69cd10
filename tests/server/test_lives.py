"""Sleep, copies, changes and ends over the daemon's real socket; the development engine's machines do not sleep."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.server.daemon import RunningDaemon
from tests.server.test_app import ask

from hearth.sdk.client import Client, Sandbox

SANDBOX = "/api/v1/sandboxes/shared"


def send(daemon: RunningDaemon, method: str, path: str, body: object = None) -> tuple[int, Any]:
    content = body if isinstance(body, bytes | None) else json.dumps(body).encode()
    status, _, answer = ask(daemon, method, path, content, token=daemon.token)
    return status, answer


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (f"{SANDBOX}/stop", None),
        (f"{SANDBOX}/pause", None),
        (f"{SANDBOX}/fork", {"count": 2}),
        (f"{SANDBOX}/checkpoint", {"name": "before"}),
        ("/api/v1/machine-templates", {"image": "debian"}),
    ],
)
def test_an_engine_whose_machines_do_not_sleep_says_so(
    daemon: RunningDaemon, client: Client, sandbox: Sandbox, path: str, body: object
) -> None:
    status, problem = send(daemon, "POST", path, body)
    assert (status, problem["code"]) == (409, "conflict")
    assert "sleep" in problem["error"] + problem["details"]
    assert send(daemon, "GET", "/api/v1/snapshots")[1]["items"] == []
    assert client.run("shared", ["true"]).exit_code == 0


@pytest.mark.parametrize("body", [None, b"", {}, {"force": True}])
def test_a_running_sandbox_is_started_with_or_without_a_body(
    daemon: RunningDaemon, sandbox: Sandbox, body: object
) -> None:
    status, view = send(daemon, "POST", f"{SANDBOX}/start", body)
    assert (status, view["id"], view["state"], view["heat"]) == (200, sandbox.id, "running", "hot")


@pytest.mark.parametrize(
    ("method", "path", "body", "field"),
    [
        ("POST", f"{SANDBOX}/stop", {"force": True}, "force"),
        ("POST", f"{SANDBOX}/start", {"force": "yes"}, "force"),
        ("POST", f"{SANDBOX}/fork", {"count": 65}, "count"),
        ("POST", f"{SANDBOX}/fork", {"name": "../etc"}, "name"),
        ("POST", f"{SANDBOX}/checkpoint", None, "body"),
        ("POST", f"{SANDBOX}/checkpoint", {}, "name"),
        ("PATCH", SANDBOX, None, "body"),
        ("PATCH", SANDBOX, {"cpus": 2}, "cpus"),
        ("PATCH", SANDBOX, {"ttl_s": 0}, "ttl_s"),
        ("PATCH", SANDBOX, {"labels_add": {"": "x"}}, "labels_add"),
        ("POST", "/api/v1/sandboxes", {"from": "shared", "image": "debian"}, "image"),
        ("POST", "/api/v1/machine-templates", {"cpus": 0}, "cpus"),
        ("GET", "/api/v1/snapshots?limit=0", None, "limit"),
        ("GET", "/api/v1/snapshots?label=a%3Db", None, "label"),
        ("GET", "/api/v1/endings?cursor=forged", None, "cursor"),
    ],
)
def test_what_breaks_the_contract_is_400_naming_the_field(
    daemon: RunningDaemon, sandbox: Sandbox, method: str, path: str, body: object, field: str
) -> None:
    status, problem = send(daemon, method, path, body)
    assert (status, problem["code"]) == (400, "invalid")
    assert field in problem["error"] + problem["details"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        *(("POST", f"/api/v1/sandboxes/nosuch/{verb}") for verb in ("stop", "start", "pause", "resume", "fork")),
        ("PATCH", "/api/v1/sandboxes/nosuch"),
        ("POST", "/api/v1/sandboxes/nosuch/save-image"),
        ("GET", "/api/v1/snapshots/nosuch"),
        ("DELETE", "/api/v1/snapshots/nosuch"),
        ("POST", "/api/v1/snapshots/nosuch/resume"),
        ("GET", "/api/v1/endings/nosuch"),
        ("GET", "/api/v1/endings/%00"),
        ("DELETE", "/api/v1/machine-templates/..%2f..%2fetc"),
    ],
)
def test_what_is_not_there_is_404(daemon: RunningDaemon, method: str, path: str) -> None:
    named = path.endswith("save-image")
    body = {"name": "x"} if named else {} if method == "PATCH" else None
    status, problem = send(daemon, method, path, body)
    assert (status, problem["code"]) == (404, "not_found")


def test_a_change_leaves_what_it_does_not_name(daemon: RunningDaemon, client: Client) -> None:
    with client.create(name="changing", labels={"a": "1", "b": "2"}, ttl_s=3600) as sandbox:
        path = f"/api/v1/sandboxes/{sandbox.id}"
        before = send(daemon, "GET", path)[1]
        assert before["expires_at"] is not None
        status, after = send(daemon, "PATCH", path, {"labels_remove": ["a"], "labels_add": {"c": "3"}})
        assert status == 200
        same = ("name", "ttl_s", "expires_at", "keep_hot", "created_at")
        assert (after["labels"], [after[name] for name in same]) == (
            {"b": "2", "c": "3"},
            [before[name] for name in same],
        )
        taken_away = send(daemon, "PATCH", path, {"ttl_s": None})[1]
        assert (taken_away["ttl_s"], taken_away["expires_at"]) == (None, None)


def test_a_name_that_is_taken_is_409(daemon: RunningDaemon, client: Client, sandbox: Sandbox) -> None:
    with client.create() as other:
        status, problem = send(daemon, "PATCH", f"/api/v1/sandboxes/{other.id}", {"name": "shared"})
        assert (status, problem["code"]) == (409, "conflict")


def test_an_end_is_remembered_and_found_by_id_and_name(daemon: RunningDaemon, client: Client) -> None:
    sandbox = client.create(name="forgotten-not")
    sandbox.destroy()
    for ref in (sandbox.id, "forgotten-not"):
        status, ending = send(daemon, "GET", f"/api/v1/endings/{ref}")
        assert (status, ending["sandbox_id"], ending["exit_cause"]["kind"]) == (200, sandbox.id, "user")
    page = send(daemon, "GET", "/api/v1/endings?limit=1")[1]
    assert len(page["items"]) == 1
    assert page["items"][0]["exit_cause"]["console"] == []
