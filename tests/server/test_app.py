"""What every request meets, over the daemon's real socket: paths, methods, tokens, bodies, ids, problems."""

from __future__ import annotations

import http.client
import json
import re
import socket
import threading
from typing import Any
from urllib.parse import quote

import pytest
from tests.server.daemon import RunningDaemon

from hearth.sdk.client import Client

PROBLEM = {"error", "code", "details", "resolution", "request_id"}


class UnixConnection(http.client.HTTPConnection):
    """The standard library's client over a Unix socket: nothing of the SDK stands between test and server."""

    def __init__(self, path: str) -> None:
        super().__init__("hearth", timeout=60)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(60)
        self.sock.connect(self.path)


Answer = tuple[int, dict[str, str], Any]


def ask(
    daemon: RunningDaemon,
    method: str,
    path: str,
    body: bytes | None = None,
    *,
    token: str | None = None,
    **headers: str,
) -> Answer:
    """Send one request and give status, headers (names in lower case) and the JSON of the answer."""
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    if token is not None:
        sent["Authorization"] = f"Bearer {token}"
    connection = UnixConnection(str(daemon.data.api_socket))
    try:
        connection.request(method, path, body, sent)
        answer = connection.getresponse()
        content = answer.read()
        values = {name.lower(): value for name, value in answer.getheaders()}
        return answer.status, values, json.loads(content) if content else None
    finally:
        connection.close()


@pytest.mark.parametrize("path", ["/health", "/healthz", "/livez", "/readyz", "/openapi.json"])
def test_what_is_public_needs_no_token(daemon: RunningDaemon, path: str) -> None:
    status, headers, body = ask(daemon, "GET", path)
    assert (status, headers["content-type"]) == (200, "application/json")
    assert body


def test_health_counts_and_says_for_how_long(daemon: RunningDaemon) -> None:
    _, _, body = ask(daemon, "GET", "/health")
    assert body["status"] == "healthy"
    assert isinstance(body["sandboxes"], int)
    assert re.fullmatch(r"(\d+[dhm] )*\d+s", body["uptime"])


def test_head_is_answered_as_get_is_without_the_body(daemon: RunningDaemon) -> None:
    status, headers, body = ask(daemon, "HEAD", "/healthz")
    assert (status, body) == (200, None)
    assert int(headers["content-length"]) > 0


@pytest.mark.parametrize(
    "path", ["/", "/nope", "/api/v1", "/api/v1/nope", "/health/", "/api/v1/sandboxes/", "//health"]
)
def test_an_unknown_path_is_404_in_the_shape_of_a_problem(daemon: RunningDaemon, path: str) -> None:
    status, _, body = ask(daemon, "GET", path)
    assert (status, body["code"], set(body)) == (404, "not_found", PROBLEM)


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/api/v1/sandboxes", "GET, HEAD, POST"),
        ("POST", "/health", "GET, HEAD"),
        ("POST", "/api/v1/sandboxes/web", "DELETE, GET, HEAD, PATCH"),
        ("GET", "/api/v1/sandboxes/web/stop", "POST"),
        ("PUT", "/api/v1/snapshots/before", "DELETE, GET, HEAD"),
        ("GET", "/api/v1/sandboxes/web/exec", "POST"),
        ("DELETE", "/openapi.json", "GET, HEAD"),
    ],
)
def test_a_wrong_method_is_405_and_names_the_right_ones(
    daemon: RunningDaemon, method: str, path: str, allowed: str
) -> None:
    status, headers, body = ask(daemon, method, path)
    assert (status, body["code"], set(body)) == (405, "method_not_allowed", PROBLEM)
    assert headers["allow"] == allowed


@pytest.mark.parametrize(
    "authorization", [None, "", "Bearer", "Bearer ", "Basic aGVhcnRo", "Bearer hk_" + "0" * 64, "Bearer \xff"]
)
def test_without_the_right_token_nothing_is_told(daemon: RunningDaemon, authorization: str | None) -> None:
    headers = {} if authorization is None else {"Authorization": authorization}
    status, answered, body = ask(daemon, "GET", "/api/v1/sandboxes", None, token=None, **headers)
    assert (status, body["code"], set(body)) == (401, "unauthenticated", PROBLEM)
    assert answered["www-authenticate"] == "Bearer"


def test_a_body_is_not_read_before_the_token_is_checked(daemon: RunningDaemon) -> None:
    status, _, _ = ask(daemon, "POST", "/api/v1/sandboxes", b"not json")
    assert status == 401


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"", "body"),
        (b"{", "body"),
        (b"\xff", "body"),
        (b'{"image":"no/such"}', "image"),
        (b'{"cpus":0}', "cpus"),
        (b'{"cpus":4096}', "cpus"),
        (b'{"memory_mb":1}', "memory_mb"),
        (b'{"memory_mb":1048576}', "memory_mb"),
        (b'{"name":"../etc"}', "name"),
        (b'{"nmae":"web"}', "nmae"),
    ],
)
def test_a_bad_body_is_400_naming_the_field_and_nothing_is_made(daemon: RunningDaemon, body: bytes, field: str) -> None:
    status, _, problem = ask(daemon, "POST", "/api/v1/sandboxes", body, token=daemon.token)
    assert (status, problem["code"]) == (400, "invalid")
    assert field in problem["error"] + problem["details"]
    assert problem["resolution"]
    assert ask(daemon, "GET", "/health")[2]["sandboxes"] == len(list(daemon.data.machines.iterdir()))


def test_an_unknown_image_is_404_and_nothing_is_made(daemon: RunningDaemon) -> None:
    before = len(list(daemon.data.machines.iterdir()))
    status, _, problem = ask(daemon, "POST", "/api/v1/sandboxes", b'{"image":"nosuch"}', token=daemon.token)
    assert (status, problem["code"]) == (404, "not_found")
    assert "nosuch" in problem["details"]
    assert len(list(daemon.data.machines.iterdir())) == before


def test_another_content_type_is_400(daemon: RunningDaemon) -> None:
    status, _, problem = ask(
        daemon, "POST", "/api/v1/sandboxes", b"name=web", token=daemon.token, Content_Type="text/plain"
    )
    assert status == 400
    assert "Content-Type" in problem["details"]


def test_an_announced_body_beyond_the_limit_is_413_at_once(daemon: RunningDaemon) -> None:
    status, headers, problem = ask(
        daemon, "POST", "/api/v1/sandboxes", None, token=daemon.token, Content_Length="1048577"
    )
    assert (status, problem["code"]) == (413, "too_large")
    assert headers["connection"] == "close"


def test_a_body_that_grows_beyond_the_limit_is_413(daemon: RunningDaemon) -> None:
    connection = UnixConnection(str(daemon.data.api_socket))
    try:
        connection.putrequest("POST", "/api/v1/sandboxes")
        connection.putheader("Authorization", f"Bearer {daemon.token}")
        connection.putheader("Transfer-Encoding", "chunked")
        connection.endheaders()
        for _ in range(17):
            connection.send(b"10000\r\n" + b" " * 0x10000 + b"\r\n")
        answer = connection.getresponse()
        assert (answer.status, json.loads(answer.read())["code"]) == (413, "too_large")
    finally:
        connection.close()


def test_a_body_of_exactly_the_limit_is_read(daemon: RunningDaemon) -> None:
    body = b"{" + b" " * (1_048_576 - 11) + b'"cpus":0}'
    body = body[:-9].ljust(1_048_576 - 9) + b'"cpus":0}'
    status, _, problem = ask(daemon, "POST", "/api/v1/sandboxes", body, token=daemon.token)
    assert (status, "cpus" in problem["details"]) == (400, True)


@pytest.mark.parametrize("header", ["X-Request-ID", "correlation_id"])
def test_the_callers_own_id_is_kept_and_returned(daemon: RunningDaemon, header: str) -> None:
    connection = UnixConnection(str(daemon.data.api_socket))
    try:
        connection.request("GET", "/nope", headers={header: "job-42/a"})
        answer = connection.getresponse()
        assert json.loads(answer.read())["request_id"] == "job-42/a"
        assert answer.getheader("X-Request-ID") == "job-42/a"
        assert answer.getheader(header) == "job-42/a"
    finally:
        connection.close()


@pytest.mark.parametrize("given", ["a" * 129, "with blank", "x;y"])
def test_an_id_that_would_spoil_the_log_is_replaced(daemon: RunningDaemon, given: str) -> None:
    _, headers, _ = ask(daemon, "GET", "/nope", X_Request_ID=given)
    assert re.fullmatch("req-[0-9a-f]{16}", headers["x-request-id"])


def test_the_log_tells_the_story_under_the_id_and_never_the_token(daemon: RunningDaemon) -> None:
    path = "/api/v1/sandboxes?limit=1&label=secret%3Dinquery"
    assert ask(daemon, "GET", path, token=daemon.token, X_Request_ID="log-test")[0] == 200
    (entry,) = daemon.entries("log-test")
    assert (entry["event"], entry["method"], entry["path"], entry["status"], entry["user"]) == (
        "request",
        "GET",
        "/api/v1/sandboxes",
        200,
        "admin",
    )
    text = daemon.log_file.read_text()
    assert daemon.token not in text
    assert "inquery" not in text


def test_a_path_cannot_write_a_log_line_of_its_own(daemon: RunningDaemon) -> None:
    assert ask(daemon, "GET", "/a%0A%1b[31mforged", X_Request_ID="forge-test")[0] == 404
    entries = [entry for entry in daemon.entries("forge-test") if entry["event"] == "request refused"]
    assert entries
    assert all(str(value).isprintable() for entry in entries for value in entry.values())


@pytest.mark.parametrize("ref", ["nosuch", "sb-0000000000000000", "..%2f..%2fetc", "%00", "x" * 2000])
def test_what_is_not_there_is_404(daemon: RunningDaemon, ref: str) -> None:
    for method in ("GET", "DELETE"):
        status, _, problem = ask(daemon, method, f"/api/v1/sandboxes/{ref}", token=daemon.token)
        assert (status, problem["code"]) == (404, "not_found")


@pytest.mark.parametrize("query", ["limit=0", "limit=x", "cursor=%00", "cursor=forged", "label=x", "order=up"])
def test_a_bad_query_is_400(daemon: RunningDaemon, query: str) -> None:
    status, _, problem = ask(daemon, "GET", f"/api/v1/sandboxes?{query}", token=daemon.token)
    assert (status, problem["code"]) == (400, "invalid")
    assert query.split("=")[0] in problem["error"] + problem["details"]


def test_a_list_comes_in_pages_that_together_are_whole(daemon: RunningDaemon, client: Client) -> None:
    made = [client.create(labels={"paged": "yes"}).id for _ in range(3)]
    try:
        found: list[str] = []
        more = ""
        while True:
            path = f"/api/v1/sandboxes?label=paged%3Dyes&limit=2{more}"
            status, _, page = ask(daemon, "GET", path, token=daemon.token)
            assert (status, len(page["items"]) <= 2) == (200, True)
            found += [item["id"] for item in page["items"]]
            if page["next_cursor"] is None:
                break
            more = f"&cursor={quote(page['next_cursor'])}"
        assert sorted(found) == sorted(made)
    finally:
        for each in made:
            client.destroy(each)


def test_of_many_creations_by_one_name_one_makes_it_and_all_give_it(daemon: RunningDaemon, client: Client) -> None:
    answers: list[Answer] = []

    def create() -> None:
        answers.append(ask(daemon, "POST", "/api/v1/sandboxes", b'{"name":"raced"}', token=daemon.token))

    threads = [threading.Thread(target=create) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    try:
        assert sorted(status for status, _, _ in answers) == [200] * 7 + [201]
        assert len({body["id"] for _, _, body in answers}) == 1
        assert {body["state"] for _, _, body in answers} == {"running"}
    finally:
        client.destroy("raced")


def test_destroying_answers_nothing_and_leaves_nothing(daemon: RunningDaemon, client: Client) -> None:
    sandbox = client.create()
    assert ask(daemon, "DELETE", f"/api/v1/sandboxes/{sandbox.name}", token=daemon.token)[::2] == (204, None)
    assert not daemon.data.machine(sandbox.id).exists()
    assert ask(daemon, "DELETE", f"/api/v1/sandboxes/{sandbox.name}", token=daemon.token)[0] == 404
