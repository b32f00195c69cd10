"""What the operations of sleep, copies and checkpoints send and read, without a daemon."""

from __future__ import annotations

import json
from typing import Any

import pytest

from hearth.errors import InvalidInput
from hearth.sdk import sleep_calls
from hearth.sdk.call import Call
from hearth.sdk.http1 import HttpResponse

SANDBOX = "/api/v1/sandboxes/web"
SENT: list[tuple[Call[Any], str, str, object]] = [
    (sleep_calls.stop("web"), "POST", f"{SANDBOX}/stop", {}),
    (sleep_calls.start("web", force=False), "POST", f"{SANDBOX}/start", {}),
    (sleep_calls.start("web", force=True), "POST", f"{SANDBOX}/start", {"force": True}),
    (sleep_calls.pause("web"), "POST", f"{SANDBOX}/pause", {}),
    (sleep_calls.resume("web"), "POST", f"{SANDBOX}/resume", {}),
    (sleep_calls.fork("web", name=None, count=1), "POST", f"{SANDBOX}/fork", {}),
    (sleep_calls.fork("web", name="b", count=3), "POST", f"{SANDBOX}/fork", {"name": "b", "count": 3}),
    (sleep_calls.checkpoint("web", "before"), "POST", f"{SANDBOX}/checkpoint", {"name": "before"}),
    (sleep_calls.save_image("web", "mine"), "POST", f"{SANDBOX}/save-image", {"name": "mine"}),
    (sleep_calls.update("web", {"ttl_s": None}), "PATCH", SANDBOX, {"ttl_s": None}),
    (sleep_calls.update("web", {"labels_remove": ["a"]}), "PATCH", SANDBOX, {"labels_remove": ["a"]}),
    (sleep_calls.snapshots_page("c="), "GET", "/api/v1/snapshots?limit=1000&cursor=c%3D", None),
    (sleep_calls.snapshot("a/b"), "GET", "/api/v1/snapshots/a%2Fb", None),
    (sleep_calls.delete_snapshot("before"), "DELETE", "/api/v1/snapshots/before", None),
    (
        sleep_calls.resume_snapshot("before", name="c", count=2),
        "POST",
        "/api/v1/snapshots/before/resume",
        {"name": "c", "count": 2},
    ),
    (sleep_calls.endings_page(None), "GET", "/api/v1/endings?limit=1000", None),
    (sleep_calls.ending("web"), "GET", "/api/v1/endings/web", None),
    (sleep_calls.machine_templates(), "GET", "/api/v1/machine-templates", None),
    (sleep_calls.warm_machine_template({"image": "alpine"}), "POST", "/api/v1/machine-templates", {"image": "alpine"}),
    (sleep_calls.delete_machine_template("tpl-1"), "DELETE", "/api/v1/machine-templates/tpl-1", None),
]


@pytest.mark.parametrize(("call", "method", "target", "body"), SENT, ids=lambda value: str(value)[:50])
def test_a_call_travels_as_the_contract_says(call: Call[Any], method: str, target: str, body: object) -> None:
    assert (call.request.method, call.request.target) == (method, target)
    assert (json.loads(call.request.body) if call.request.body else None) == body


@pytest.mark.parametrize("count", [0, -1, 65])
def test_a_count_outside_the_contract_never_travels(count: int) -> None:
    with pytest.raises(InvalidInput) as refused:
        sleep_calls.fork("web", name=None, count=count)
    assert refused.value.field == "count"


def test_a_checkpoint_that_cannot_be_one_is_refused_by_its_own_word() -> None:
    with pytest.raises(InvalidInput) as refused:
        sleep_calls.snapshot("..")
    assert refused.value.field == "snapshot"


def test_a_checkpoint_is_read_with_its_parent() -> None:
    body = {
        "id": "cp-2",
        "name": "after",
        "state": "ready",
        "sandbox_id": "sb-1",
        "sandbox_name": "web",
        "parent": "cp-1",
        "image": "debian",
        "cpus": 1,
        "memory_mb": 256,
        "size_bytes": 1024,
        "created_at": "2026-01-02T03:04:05Z",
    }
    read = sleep_calls.snapshot("after").read(HttpResponse(status=200, headers={}, body=json.dumps(body).encode()))
    assert (read.parent, read.size_bytes, read.created_at.year) == ("cp-1", 1024, 2026)
