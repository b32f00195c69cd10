"""What is sent again, and what is not: by table, at a scripted server, and over a daemon that is killed."""

from __future__ import annotations

import contextlib
import json
import os
import threading
from pathlib import Path

import pytest
from tests.sdk.test_transport import OK, Script, ScriptedServer
from tests.server.daemon import data_directory, publish_images, running_daemon

from hearth.errors import Code, RateLimited, Unavailable
from hearth.sdk import AsyncClient, Client, SandboxDied
from hearth.sdk.http1 import ConnectionLost, HttpRequest, HttpResponse
from hearth.sdk.retries import Retries

HEALTH = b'{"status":"healthy","sandboxes":0,"uptime":"1s","version":"1"}'
HEALTHY = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(HEALTH), HEALTH)


def request(method: str, **more: object) -> HttpRequest:
    return HttpRequest(method=method, target="/", timeout_s=60, accept="application/json", **more)  # type: ignore[arg-type]


def problem(status: int, code: Code, **headers: str) -> HttpResponse:
    body = {"error": "no", "code": code, "details": "", "resolution": "", "request_id": "r"}
    return HttpResponse(status=status, headers=headers, body=json.dumps(body).encode())


def as_bytes(response: HttpResponse) -> bytes:
    head = f"HTTP/1.1 {response.status} X\r\nContent-Length: {len(response.body)}\r\nRetry-After: 0\r\n\r\n"
    return head.encode() + response.body


@pytest.mark.parametrize(
    ("sent", "again"),
    [
        (request("GET"), True),
        (request("HEAD"), True),
        (request("PUT", body=b"x"), True),
        (request("PUT", streamed=True), False),
        (request("POST"), False),
        (request("POST", idempotency_key="k"), True),
        (request("PATCH"), False),
        (request("DELETE"), False),
    ],
)
def test_what_was_cut_off_is_sent_again_where_that_does_no_harm(sent: HttpRequest, again: bool) -> None:
    assert (Retries(sent, 30).after_loss(ConnectionLost(answered=False)) is not None) is again
    assert (Retries(sent, 30).after_answer(problem(503, Code.UNAVAILABLE)) is not None) is again


@pytest.mark.parametrize(
    ("answer", "pause_s"),
    [
        (HttpResponse(status=200, headers={}, body=b"{}"), None),
        (problem(404, Code.NOT_FOUND), None),
        (problem(429, Code.RATE_LIMITED, **{"retry-after": "7"}), 7.0),
        (problem(429, Code.RATE_LIMITED, **{"retry-after": "1", "retry-after-ms": "250"}), 0.25),
        (problem(429, Code.RATE_LIMITED, **{"retry-after": "1", "retry-after-ms": "20"}), 0.1),
        (problem(429, Code.RATE_LIMITED, **{"retry-after": "2", "retry-after-ms": "soon"}), 2.0),
        (problem(429, Code.RATE_LIMITED, **{"retry-after-ms": "9" * 400}), None),
        (problem(429, Code.QUOTA_EXCEEDED, **{"retry-after": "7"}), None),
        (problem(429, Code.RATE_LIMITED, **{"retry-after": "3600"}), None),
        (problem(503, Code.HOST_UNFIT), None),
        (problem(500, Code.INTERNAL), None),
    ],
)
def test_only_what_is_refused_for_its_rate_is_always_sent_again(answer: HttpResponse, pause_s: float | None) -> None:
    assert Retries(request("POST"), 30).after_answer(answer) == pause_s


def test_a_daemon_that_is_not_there_is_waited_for_only_if_it_was() -> None:
    retries = Retries(request("GET"), 30)
    assert retries.after_loss(Unavailable("nobody answers")) is None
    assert retries.after_loss(ConnectionLost(answered=True)) is not None
    assert retries.after_loss(Unavailable("nobody answers")) is not None
    assert Retries(request("GET"), 0).after_loss(ConnectionLost(answered=False)) is None


async def test_both_clients_send_again(tmp_path: Path) -> None:
    refused = as_bytes(problem(429, Code.RATE_LIMITED))
    script: Script = [[None], [refused, HEALTHY]]
    for number in range(2):
        server = ScriptedServer(tmp_path / str(number), [*script, []])
        try:
            if number:
                async with AsyncClient(f"unix:{server.path}") as client:
                    assert (await client.health()).status == "healthy"
            else:
                with Client(f"unix:{server.path}") as blocking:
                    assert blocking.health().status == "healthy"
            assert len(server.requests) == 3
        finally:
            server.close()


def test_a_refusal_is_told_when_the_patience_is_over(tmp_path: Path) -> None:
    server = ScriptedServer(tmp_path / "s", [[as_bytes(problem(429, Code.RATE_LIMITED)), OK], []])
    try:
        with Client(f"unix:{server.path}", patience_s=0) as client, pytest.raises(RateLimited):
            client.health()
    finally:
        server.close()


def test_a_command_that_ended_with_its_daemon_says_so_at_once(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with data_directory() as data:
        publish_images(data)
        with running_daemon(data) as daemon, daemon.client() as client:
            sandbox = client.create(name="web")

            def run() -> None:
                with (
                    Client(daemon.url, daemon.token, patience_s=0) as other,
                    contextlib.suppress(Unavailable, SandboxDied),
                ):
                    other.run("web", ["sh", "-c", f"echo begun >{fifo}; sleep 1000"])

            running = threading.Thread(target=run)
            running.start()
            assert fifo.read_text() == "begun\n"
            [left] = sandbox.execs()
            daemon.process.kill()
            daemon.process.wait()
            running.join()
        with (
            running_daemon(data) as daemon,
            daemon.client() as client,
            client.commands.logs(left.id) as logs,
            pytest.raises(Unavailable, match="the daemon ended"),
        ):
            list(logs)
