"""The middleware around applications that fail in every way, served over a real socket."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send
from tests.server.test_app import UnixConnection

from hearth.errors import EngineFailed, GuestFailed, HostUnfit, NoSpace, NotFound, TimedOut, Unavailable
from hearth.server.app import wrap
from hearth.server.draining import Drain
from hearth.server.listen import unix_listener
from hearth.server.serve import Server

EXPECTED = {kind.code.value: kind for kind in (TimedOut, GuestFailed, Unavailable, NoSpace, HostUnfit)}
waiting = threading.Event()
"""Set once the application waits for its caller to leave."""


async def failing(scope: Scope, receive: Receive, send: Send) -> None:
    """Fail in the way that the path names."""
    match scope["path"]:
        case "/unexpected":
            raise RuntimeError("the cause with a secret")
        case "/ours":
            raise EngineFailed("the monitor ended", details="status 1") from ValueError("the cause with a secret")
        case str(named) if named.startswith("/expected/"):
            raise EXPECTED[named.removeprefix("/expected/")]("failed", details="as it happens") from ValueError("why")
        case "/theirs":
            raise NotFound("no such sandbox", details="web")
        case "/begun":
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"9")]})
            await send({"type": "http.response.body", "body": b"half", "more_body": True})
            raise RuntimeError("the cause with a secret")
        case "/gone":
            waiting.set()
            while (await receive())["type"] != "http.disconnect":
                pass
            raise ClientDisconnect
        case _:
            while (await receive()).get("more_body"):
                pass
            await send({"type": "http.response.start", "status": 204, "headers": []})
            await send({"type": "http.response.body", "body": b""})


@contextlib.contextmanager
def served(listener: socket.socket) -> Iterator[None]:
    """Serve the failing application from a thread until the block ends."""
    server = Server(wrap(failing), drain=Drain(lambda: None), drain_s=5)
    started = threading.Event()

    async def serve() -> None:
        serving = asyncio.create_task(server.serve([listener]))
        started.set()
        await serving

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    try:
        started.wait(60)
        yield
    finally:
        server.should_exit = True
        thread.join(60)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("s") / "s"
    with unix_listener(path) as listener, served(listener):
        yield path


def get(path: Path, target: str, **headers: str) -> tuple[int, dict[str, str]]:
    connection = UnixConnection(str(path))
    try:
        connection.request("GET", target, headers=headers)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def test_an_unexpected_error_is_told_to_the_log_alone(path: Path) -> None:
    with structlog.testing.capture_logs() as logs:
        status, problem = get(path, "/unexpected", **{"X-Request-ID": "look-here"})
    assert (status, problem["code"], problem["request_id"]) == (500, "internal", "look-here")
    assert "look-here" in problem["resolution"]
    assert "secret" not in json.dumps(problem)
    assert [entry["event"] for entry in logs if entry["log_level"] == "error"] == ["unexpected error"]


def test_the_cause_of_our_own_failure_stays_in_the_log(path: Path) -> None:
    with structlog.testing.capture_logs() as logs:
        status, problem = get(path, "/ours")
    assert (status, problem["error"], problem["details"]) == (500, "the monitor ended", "status 1")
    assert "secret" not in json.dumps(problem)
    (entry,) = [entry for entry in logs if entry["log_level"] == "error"]
    assert str(entry["exc_info"].__cause__) == "the cause with a secret"


@pytest.mark.parametrize("code", ["timeout", "guest_failed", "unavailable", "no_space", "host_unfit"])
def test_a_failure_that_belongs_to_the_trade_is_a_warning_without_a_traceback(path: Path, code: str) -> None:
    with structlog.testing.capture_logs() as logs:
        status, problem = get(path, f"/expected/{code}")
    assert (status >= 500, problem["code"]) == (True, code)
    (entry,) = [entry for entry in logs if entry["event"] == "request failed"]
    assert (entry["log_level"], entry["code"], "exc_info" in entry) == ("warning", code, False)


def test_the_callers_error_is_one_line_without_a_traceback(path: Path) -> None:
    with structlog.testing.capture_logs() as logs:
        assert get(path, "/theirs")[0] == 404
    (entry,) = [entry for entry in logs if entry["event"] == "request refused"]
    assert (entry["log_level"], "exc_info" in entry) == ("info", False)


def test_an_answer_that_has_begun_is_cut_off_not_completed(path: Path) -> None:
    connection = UnixConnection(str(path))
    try:
        connection.request("GET", "/begun")
        answer = connection.getresponse()
        with pytest.raises(http.client.IncompleteRead):
            answer.read()
    finally:
        connection.close()


def test_a_caller_who_left_is_no_error(tmp_path: Path) -> None:
    waiting.clear()
    with structlog.testing.capture_logs() as logs, unix_listener(tmp_path / "s") as listener, served(listener):
        connection = UnixConnection(str(tmp_path / "s"))
        connection.request("GET", "/gone")
        assert waiting.wait(60)
        connection.close()
    (entry,) = logs
    assert (entry["event"], entry["log_level"], entry["status"]) == ("request", "info", 499)


@pytest.mark.parametrize("length", ["-1", "1e3", "0x10", "1, 2"])
def test_a_length_that_is_no_number_is_400(path: Path, length: str) -> None:
    connection = UnixConnection(str(path))
    try:
        connection.putrequest("POST", "/")
        connection.putheader("Content-Length", length)
        connection.endheaders()
        assert connection.getresponse().status == 400
    finally:
        connection.close()
