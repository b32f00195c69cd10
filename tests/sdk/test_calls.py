"""Arguments become requests and responses become values, without a daemon."""

from __future__ import annotations

import base64
import json

import pytest

from hearth.api.limits import MAX_BODY_BYTES
from hearth.errors import Conflict, HearthError, InvalidInput, NotFound, TooLarge, Unavailable
from hearth.sdk import calls
from hearth.sdk.http1 import HttpResponse

VIEW = {
    "id": "sb-1",
    "name": "web",
    "state": "running",
    "image": "debian",
    "cpus": 1,
    "memory_mb": 256,
    "labels": {},
    "created_at": "2026-01-02T03:04:05Z",
    "error": None,
    "timings": [{"name": "boot", "duration_ms": 1.5}],
}


def answer(status: int, body: object) -> HttpResponse:
    return HttpResponse(status=status, headers={}, body=body if isinstance(body, bytes) else json.dumps(body).encode())


def test_create_sends_only_what_was_said() -> None:
    request = calls.create({"name": "web", "cpus": 2}).request
    assert (request.method, request.target) == ("POST", "/api/v1/sandboxes")
    assert json.loads(request.body) == {"name": "web", "cpus": 2}
    assert json.loads(calls.create({}).request.body) == {}
    assert json.loads(calls.create({"from_": "before", "ttl_s": 60}).request.body) == {"from": "before", "ttl_s": 60}


def test_a_sandbox_is_read_and_fields_of_a_newer_daemon_do_no_harm() -> None:
    view = calls.get("web").read(answer(200, {**VIEW, "hot": True}))
    assert (view.id, view.timings[0].duration_ms) == ("sb-1", 1.5)


@pytest.mark.parametrize(
    ("ref", "target"),
    [("web", "web"), ("a/b", "a%2Fb"), ("x?y#z", "x%3Fy%23z"), ("é", "%C3%A9"), ("a b\r\nX: y", "a%20b%0D%0AX%3A%20y")],
)
def test_a_reference_stays_one_part_of_the_path(ref: str, target: str) -> None:
    assert calls.get(ref).request.target == f"/api/v1/sandboxes/{target}"


@pytest.mark.parametrize("ref", ["", ".", ".."])
def test_a_reference_that_would_mean_another_path_is_refused(ref: str) -> None:
    with pytest.raises(InvalidInput):
        calls.destroy(ref)


def test_a_list_travels_as_a_query() -> None:
    assert calls.list_page(labels={"a": "b c"}, cursor="x=", limit=5).request.target == (
        "/api/v1/sandboxes?label=a%3Db+c&limit=5&cursor=x%3D"
    )


def test_destroy_reads_an_empty_answer() -> None:
    call = calls.destroy("web")
    assert call.request.method == "DELETE"
    call.read(answer(204, b""))


@pytest.mark.parametrize(
    ("stdin", "sent"),
    [
        (None, {}),
        ("text é", {"stdin": "text é"}),
        (b"bytes", {"stdin": "bytes"}),
        (b"\xff\x00", {"stdin": "/wA=", "stdin_encoding": "base64"}),
    ],
)
def test_stdin_travels_as_text_or_base64(stdin: str | bytes | None, sent: dict[str, str]) -> None:
    request = calls.run("web", ["cat"], {"stdin": stdin}).request
    assert json.loads(request.body) == {"cmd": ["cat"], **sent}


@pytest.mark.parametrize("stdin", ["\x01" * 400_000, b"\x1b" * 400_000])
def test_stdin_that_json_would_escape_to_six_times_its_size_travels_as_base64(stdin: str | bytes) -> None:
    body = calls.run("web", ["cat"], {"stdin": stdin}).request.body
    assert len(body) < 540_000
    sent = json.loads(body)
    assert sent["stdin_encoding"] == "base64"
    assert base64.b64decode(sent["stdin"]) == (stdin.encode() if isinstance(stdin, str) else stdin)


def test_text_with_a_lone_surrogate_is_no_stdin() -> None:
    with pytest.raises(InvalidInput) as refused:
        calls.run("web", ["cat"], {"stdin": "a\ud800"})
    assert (refused.value.field, refused.value.resolution) == ("stdin", "pass bytes")


def test_the_answer_is_waited_for_longer_than_the_command_may_take() -> None:
    assert calls.run("web", ["true"], {"timeout_sec": 7}).request.timeout_s > 7
    assert calls.stream("web", ["true"], {}).timeout_s > 300


def test_what_is_no_text_is_refused_before_it_travels() -> None:
    with pytest.raises(InvalidInput) as refused:
        calls.run("web", ["echo", "caf\udce9"], {})
    assert "udce9" in refused.value.details
    with pytest.raises(InvalidInput):
        calls.get("caf\udce9")


@pytest.mark.parametrize("timeout_sec", [0, 86401, -3])
def test_arguments_outside_the_contract_never_travel(timeout_sec: float) -> None:
    with pytest.raises(InvalidInput) as refused:
        calls.run("web", ["true"], {"timeout_sec": timeout_sec})
    assert "timeout_sec" in refused.value.details


def test_what_the_contract_refuses_is_told_in_words_as_the_daemon_would() -> None:
    with pytest.raises(InvalidInput) as refused:
        calls.create({"cpus": 0})
    assert (refused.value.field, str(refused.value)) == ("cpus", "invalid cpus: cpus is 0 (use 1 or more)")
    with pytest.raises(InvalidInput) as refused:
        calls.create({"name": "Web"})
    assert refused.value.details == "name 'Web' is not a DNS label"


def test_a_shell_line_is_refused_with_the_list_that_was_meant() -> None:
    with pytest.raises(InvalidInput) as refused:
        calls.run("web", "ls -la", {})
    assert "'sh', '-c'" in refused.value.resolution


def test_input_beyond_the_limit_is_refused_before_it_travels() -> None:
    with pytest.raises(TooLarge):
        calls.run("web", ["cat"], {"stdin": "x" * MAX_BODY_BYTES})


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [(404, "not_found", NotFound), (409, "conflict", Conflict), (500, "internal", HearthError)],
)
def test_a_problem_becomes_the_error_it_was_made_of(status: int, code: str, kind: type[HearthError]) -> None:
    problem = {"error": "brief", "code": code, "details": "d", "resolution": "r", "request_id": "req-1"}
    with pytest.raises(kind) as raised:
        calls.get("web").read(answer(status, problem))
    assert (type(raised.value), raised.value.code.value, raised.value.details) == (kind, code, "d")


@pytest.mark.parametrize(("status", "body"), [(200, b"<html>"), (404, b"not here"), (502, b""), (200, {"id": 1})])
def test_a_stranger_is_not_taken_for_a_daemon(status: int, body: object) -> None:
    with pytest.raises(Unavailable) as raised:
        calls.get("web").read(answer(status, body))
    assert "HEARTH_URL" in raised.value.resolution
