"""Requests carried to servers in a sandbox and back: what arrives, what is changed, and how both ends may leave."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
import time
from pathlib import Path

import pytest
from tests.agent.conftest import wait_until
from tests.server.daemon import RunningDaemon
from tests.server.proxy.stage import (
    Caller,
    GuestServer,
    Script,
    answer_of,
    answering,
    fields_of,
    read_head,
    read_rest,
    read_until,
    serving,
    sized,
)
from tests.server.test_app import ask

from hearth.sdk.client import Sandbox
from hearth.server.proxy.relay import CONTINUE_S
from hearth.server.proxy.upstream import KEPT_S

pytestmark = pytest.mark.usefixtures("sandbox")
WAIT_S = 60


def seen(daemon: RunningDaemon, *lines: str, path: str = "/") -> list[tuple[str, str]]:
    """Give the fields that the server sees of a request with these lines."""
    heads: list[bytes] = []

    def script(connection: socket.socket) -> None:
        heads.append(read_head(connection))
        connection.sendall(sized(b"ok"))

    with serving(script) as server:
        answer, body = Caller(daemon, server.port).ask(Caller(daemon, server.port).head("GET", path, *lines))
        assert (answer.status, body) == (200, b"ok")
    return [("request", heads[0].partition(b"\r\n")[0].decode()), *fields_of(heads[0])]


def test_path_and_query_arrive_byte_by_byte(daemon: RunningDaemon) -> None:
    path = "/a%2Fb//c/../%20;x?q=1&q=2&token=mine&empty=&%C3%A9"
    assert dict(seen(daemon, path=path))["request"] == f"GET {path} HTTP/1.1"


def test_the_server_learns_who_came_which_way_and_never_the_token(daemon: RunningDaemon, sandbox: Sandbox) -> None:
    fields = seen(
        daemon, "X-Forwarded-For: 1.2.3.4", "X-Forwarded-Proto: gopher", "Forwarded: for=evil", "X-Real-IP: 1"
    )
    told = dict(fields)
    assert told["host"] == f"localhost:{told['x-forwarded-prefix'].rpartition('/')[2]}"
    assert told["x-forwarded-host"] == "hearth"
    assert told["x-forwarded-proto"] == "http"
    assert told["x-forwarded-prefix"].startswith("/api/v1/sandboxes/shared/proxy/")
    assert not {"authorization", "x-forwarded-for", "forwarded", "x-real-ip", "x-hearth-token"} & told.keys()
    assert daemon.token not in str(fields)


def test_the_token_goes_no_further_wherever_else_it_stands(daemon: RunningDaemon) -> None:
    token = daemon.token
    lines = (f"X-Hearth-Token: {token}", f"Cookie: key={token}", f"X-Copy: {token}", f"Referer: http://h/?k={token}")
    told = seen(daemon, *lines, "X-Kept: 1", path=f"/?a=1&key={token}&b=2")
    assert token not in str(told)
    assert dict(told)["x-kept"] == "1"
    assert dict(told)["request"] == "GET /?a=1&b=2 HTTP/1.1"


def test_a_token_in_a_trailer_goes_no_further(daemon: RunningDaemon) -> None:
    got: list[bytes] = []

    def script(connection: socket.socket) -> None:
        read_head(connection)
        got.append(read_until(connection, b"\r\n\r\n"))
        connection.sendall(sized(b"ok"))

    with serving(script) as server:
        caller = Caller(daemon, server.port)
        trailers = f"X-Sum: 1\r\nX-Copy: {daemon.token}\r\nX-Hearth-Token: {daemon.token}\r\n\r\n"
        head = caller.head("POST", "/", "Transfer-Encoding: chunked")
        assert caller.ask(head + b"1\r\nx\r\n0\r\n" + trailers.encode())[1] == b"ok"
    assert got == [b"1\r\nx\r\n0\r\nx-sum: 1\r\n\r\n"]


def test_keys_of_less_than_all_reach_what_they_are_for(daemon: RunningDaemon, sandbox: Sandbox) -> None:
    def key(**wanted: str) -> str:
        status, _, made = ask(daemon, "POST", "/api/v1/users/me/keys", json.dumps(wanted).encode(), token=daemon.token)
        assert status == 201
        secret: str = made["secret"]
        return secret

    with daemon.client() as client, client.create(name="other-of-keys") as other:
        for wanted, own, others in [
            ({"scope": "read"}, 403, 403),
            ({"scope": "exec"}, 502, 502),
            ({"scope": "read", "sandbox": sandbox.name}, 403, 403),
            ({"scope": "exec", "sandbox": sandbox.name}, 502, 404),
        ]:
            token = key(**wanted)
            for name, expected in ((sandbox.name, own), (other.name, others)):
                path = f"/api/v1/sandboxes/{name}/proxy/1/"
                assert ask(daemon, "GET", path, token=token)[0] == expected, (wanted, name)


def test_what_concerns_one_hop_stays_there(daemon: RunningDaemon) -> None:
    lines = (
        "Connection: keep-alive, X-Secret",
        "X-Secret: 1",
        "Keep-Alive: 5",
        "Proxy-Authorization: b",
        "TE: trailers, gzip",
    )
    told = dict(seen(daemon, *lines, "X-Kept: 1", "Cookie: a=b"))
    assert not {"x-secret", "keep-alive", "proxy-authorization"} & told.keys()
    assert (told["x-kept"], told["cookie"], told["te"], told["connection"]) == ("1", "a=b", "trailers", "te")


def test_with_a_header_of_its_own_for_the_token_authorization_is_the_servers(daemon: RunningDaemon) -> None:
    heads: list[bytes] = []

    def script(connection: socket.socket) -> None:
        heads.append(read_head(connection))
        connection.sendall(sized(b""))

    with serving(script) as server:
        caller = Caller(daemon, server.port)
        lines = f"Host: h\r\nX-Hearth-Token: {daemon.token}\r\nAuthorization: Basic abc\r\n\r\n"
        answer, _ = caller.ask(f"GET {caller.base}/ HTTP/1.1\r\n{lines}".encode())
        assert answer.status == 200
    assert dict(fields_of(heads[0]))["authorization"] == "Basic abc"
    assert daemon.token.encode() not in heads[0]


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/api/v1/sandboxes/shared/proxy/0/", 400, "invalid"),
        ("/api/v1/sandboxes/shared/proxy/65536/", 400, "invalid"),
        ("/api/v1/sandboxes/shared/proxy/http/", 400, "invalid"),
        ("/api/v1/sandboxes/shared/proxy/-1/", 400, "invalid"),
        ("/api/v1/sandboxes/shared/proxy/%38%30/", 400, "invalid"),
        ("/api/v1/sandboxes/nosuch/proxy/80/", 404, "not_found"),
        ("/api/v1/sandboxes/shared/proxy/", 404, "not_found"),
    ],
)
def test_what_cannot_be_is_told(daemon: RunningDaemon, path: str, status: int, code: str) -> None:
    caller = Caller(daemon, 1)
    request = caller.head().replace(b"GET " + caller.base.encode() + b"/", b"GET " + path.encode())
    answer, body = caller.ask(request)
    assert (answer.status, json.loads(body)["code"]) == (status, code)


def test_nothing_that_listens_is_502_and_no_token_401(daemon: RunningDaemon) -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        caller = Caller(daemon, reserved.getsockname()[1])
        answer, body = caller.ask(caller.head())
        assert (answer.status, json.loads(body)["code"]) == (502, "guest_failed")
        assert "nothing answers" in json.loads(body)["error"]
        answer, body = caller.ask(f"GET {caller.base}/ HTTP/1.1\r\nHost: h\r\n\r\n".encode())
        assert (answer.status, json.loads(body)["code"]) == (401, "unauthenticated")


def test_a_chunked_request_arrives_with_its_trailers(daemon: RunningDaemon) -> None:
    got: list[bytes] = []

    def script(connection: socket.socket) -> None:
        got.append(read_head(connection))
        got.append(read_until(connection, b"x-sum: 12\r\n\r\n"))
        connection.sendall(sized(b"ok"))

    with serving(script) as server:
        caller = Caller(daemon, server.port)
        head = caller.head("POST", "/", "Transfer-Encoding: chunked", "Trailer: X-Sum")
        body = b"5;ext=1\r\nhello\r\n6\r\n world\r\n0\r\nX-Sum: 12\r\nHost: evil\r\n\r\n"
        answer, _ = caller.ask(head + body)
        assert answer.status == 200
    assert ("transfer-encoding", "chunked") in fields_of(got[0])
    body = got[1]
    assert b"evil" not in body
    assert b"hello" in body
    assert b" world" in body
    assert b"ext" not in body


def test_a_chunked_answer_comes_with_its_trailers(daemon: RunningDaemon) -> None:
    answer = b"HTTP/1.1 200 Fine\r\nTransfer-Encoding: chunked\r\n\r\n3;x=1\r\nabc\r\n2\r\nde\r\n0\r\nX-Sum: 5\r\n\r\n"
    with serving(answering(answer)) as server:
        caller = Caller(daemon, server.port)
        with caller.connected() as connection:
            connection.sendall(caller.head())
            got = read_until(connection, b"\r\n\r\n0\r\nx-sum: 5\r\n\r\n"[-15:])
    assert got.startswith(b"HTTP/1.1 200 Fine\r\n")
    assert b"transfer-encoding: chunked\r\n" in got
    assert b"abc" in got
    assert b"de" in got
    assert b";x=1" not in got


def test_an_http_1_0_client_gets_no_chunks_but_an_end(daemon: RunningDaemon) -> None:
    answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    with serving(answering(answer)) as server:
        caller = Caller(daemon, server.port)
        with caller.connected() as connection:
            connection.sendall(caller.head(version="1.0"))
            head, _, body = read_rest(connection).partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in head
    assert b"connection: close" in head
    assert body == b"abcde"


def test_a_body_that_ends_with_its_connection_is_chunked_for_the_client(daemon: RunningDaemon) -> None:
    def script(connection: socket.socket) -> None:
        read_head(connection)
        connection.sendall(b"HTTP/1.0 200 OK\r\n\r\nall of it")

    with serving(script) as server:
        caller = Caller(daemon, server.port)
        answer, body = caller.ask(caller.head())
    assert (body, answer.getheader("transfer-encoding")) == (b"all of it", "chunked")


@pytest.mark.parametrize(
    ("method", "reply"),
    [
        ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"),
        ("GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 1000\r\nETag: x\r\n\r\n"),
        ("GET", b"HTTP/1.1 204 No Content\r\n\r\n"),
        ("GET", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
        ("OPTIONS", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
    ],
)
def test_answers_without_a_body_leave_the_connection_usable(daemon: RunningDaemon, method: str, reply: bytes) -> None:
    with serving(answering(reply)) as server:
        caller = Caller(daemon, server.port)
        began_s = time.monotonic()
        with caller.connected() as connection:
            for _ in range(3):
                connection.sendall(caller.head(method))
                answer, body = answer_of(connection, method)
                assert (answer.status, body) == (int(reply.split()[1]), b"")
        assert server.connections == 1 or time.monotonic() - began_s > KEPT_S


def test_connections_to_servers_are_kept_while_that_is_safe(daemon: RunningDaemon) -> None:
    with serving(answering(sized(b"one"))) as server:
        caller, began_s = Caller(daemon, server.port), time.monotonic()
        for _ in range(5):
            assert caller.ask(caller.head())[1] == b"one"
        assert server.connections == 1 or time.monotonic() - began_s > KEPT_S
    with serving(answering(sized(b"one") + b"HTTP/1.1 200 OK\r\n\r\nsurplus")) as server:
        caller = Caller(daemon, server.port)
        for _ in range(3):
            assert caller.ask(caller.head())[1] == b"one"
        assert server.connections == 3


def test_a_server_that_closes_a_kept_connection_costs_nobody_an_answer(daemon: RunningDaemon) -> None:
    def script(connection: socket.socket) -> None:
        read_head(connection)
        connection.sendall(sized(b"one"))
        read_head(connection)  # the next request comes, and we are gone without a word

    with serving(script) as server:
        caller = Caller(daemon, server.port)
        assert caller.ask(caller.head())[1] == b"one"
        assert caller.ask(caller.head())[1] == b"one"
        assert server.connections == 2


def test_a_request_that_changes_something_is_never_sent_twice(daemon: RunningDaemon) -> None:
    posts: list[bytes] = []

    def script(connection: socket.socket) -> None:
        head = read_head(connection)
        if head.startswith(b"GET"):
            connection.sendall(sized(b"one"))
            assert read_head(connection) == b"", "a connection that may be dead is not for this"
        else:
            posts.append(head)

    with serving(script) as server:
        caller = Caller(daemon, server.port)
        assert caller.ask(caller.head())[1] == b"one"
        assert caller.ask(caller.head("POST", "/", "Content-Length: 0"))[0].status == 502
        assert server.connections == 2
    assert len(posts) == 1


def test_the_client_is_told_to_go_on_by_the_server_alone(daemon: RunningDaemon) -> None:
    may_go = threading.Event()

    def script(connection: socket.socket) -> None:
        assert ("expect", "100-continue") in fields_of(read_head(connection))
        assert may_go.wait(WAIT_S)
        connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        assert connection.recv(5) == b"hello"
        connection.sendall(sized(b"ok"))

    with serving(script) as server:
        caller = Caller(daemon, server.port)
        with caller.connected() as connection:
            asked_s = time.monotonic()
            connection.sendall(caller.head("POST", "/", "Content-Length: 5", "Expect: 100-continue"))
            assert server.accepted.acquire(timeout=WAIT_S)
            connection.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                connection.recv(1, socket.MSG_PEEK)
                assert time.monotonic() - asked_s > CONTINUE_S, "nobody was to say so before the server's time was over"
            connection.settimeout(WAIT_S)
            may_go.set()
            assert read_head(connection) == b"HTTP/1.1 100 Continue\r\n\r\n"
            connection.sendall(b"hello")
            assert answer_of(connection)[1] == b"ok"


def test_a_server_that_wants_no_body_says_so_before_it_is_sent(daemon: RunningDaemon) -> None:
    with serving(answering(sized(b"too much", status="413 Content Too Large"))) as server:
        caller = Caller(daemon, server.port)
        with caller.connected() as connection:
            connection.sendall(caller.head("POST", "/", "Content-Length: 5000000000", "Expect: 100-continue"))
            answer, body = answer_of(connection)
            assert (answer.status, body, answer.getheader("connection")) == (413, b"too much", "close")
            assert read_rest(connection) == b""


def test_a_server_silent_on_expectations_gets_the_body_after_a_while(daemon: RunningDaemon) -> None:
    def script(connection: socket.socket) -> None:
        read_head(connection)
        assert connection.recv(5) == b"hello"
        connection.sendall(sized(b"ok"))

    with serving(script) as server:
        caller = Caller(daemon, server.port)
        with caller.connected() as connection:
            connection.sendall(caller.head("POST", "/", "Content-Length: 5", "Expect: 100-continue"))
            assert read_head(connection) == b"HTTP/1.1 100 Continue\r\n\r\n"
            connection.sendall(b"hello")
            assert answer_of(connection)[1] == b"ok"


def test_early_hints_pass(daemon: RunningDaemon) -> None:
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n"
    with serving(answering(hints + sized(b"ok"))) as server:
        caller = Caller(daemon, server.port)
        with caller.connected() as connection:
            connection.sendall(caller.head())
            assert b"103 Early Hints\r\nlink: </style.css>; rel=preload" in read_head(connection)
            assert answer_of(connection)[1] == b"ok"


def test_nonsense_after_early_hints_is_502_like_any_other(daemon: RunningDaemon) -> None:
    def script(connection: socket.socket) -> None:
        read_head(connection)
        connection.sendall(b"HTTP/1.1 103 Early Hints\r\n\r\nnonsense\r\n\r\n")

    with serving(script) as server:
        caller = Caller(daemon, server.port)
        with caller.connected() as connection:
            connection.sendall(caller.head())
            assert read_head(connection).startswith(b"HTTP/1.1 103 ")
            answer, body = answer_of(connection)
            assert (answer.status, json.loads(body)["code"]) == (502, "guest_failed")


@pytest.mark.parametrize("framing", [b"Content-Length: 3", b"Transfer-Encoding: chunked"])
def test_a_head_does_not_wait_for_its_body(daemon: RunningDaemon, framing: bytes) -> None:
    may_go_on = threading.Event()

    def script(connection: socket.socket) -> None:
        read_head(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\n" + framing + b"\r\n\r\n")
        assert may_go_on.wait(WAIT_S)
        connection.sendall(b"abc" if b"Length" in framing else b"3\r\nabc\r\n0\r\n\r\n")

    with serving(script) as server:
        caller = Caller(daemon, server.port)
        with caller.connected() as connection:
            connection.sendall(caller.head())
            assert read_head(connection).startswith(b"HTTP/1.1 200 OK")
            may_go_on.set()
            assert b"abc" in read_until(connection, b"abc" if b"Length" in framing else b"0\r\n\r\n")


def resident_kib(daemon: RunningDaemon) -> int:
    status = Path(f"/proc/{daemon.process.pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1])


def test_a_large_upload_goes_as_fast_as_the_server_takes_it(daemon: RunningDaemon) -> None:
    size = 100_000_000
    may_read = threading.Event()

    def script(connection: socket.socket) -> None:
        read_head(connection)
        assert may_read.wait(WAIT_S)
        left = size
        while left:
            left -= len(connection.recv(1 << 20))
        connection.sendall(sized(b"all"))

    with serving(script) as server:
        caller = Caller(daemon, server.port)
        with caller.connected() as connection:
            connection.sendall(caller.head("PUT", "/", f"Content-Length: {size}"))
            before_kib = resident_kib(daemon)
            connection.settimeout(1)
            data, sent = bytes(1 << 20), 0
            with contextlib.suppress(TimeoutError):
                while sent < size:
                    sent += connection.send(data[: size - sent])
            assert sent < 30_000_000, "nobody reads, and yet it was all taken"
            assert resident_kib(daemon) - before_kib < 16_384
            may_read.set()
            connection.settimeout(WAIT_S)
            while sent < size:
                sent += connection.send(data[: size - sent])
            assert answer_of(connection)[1] == b"all"


def test_a_slow_client_slows_the_server_and_gets_everything(daemon: RunningDaemon) -> None:
    size = 100_000_000
    stalled = threading.Event()

    def script(connection: socket.socket) -> None:
        read_head(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        connection.settimeout(1)
        data, sent = bytes(1 << 20), 0
        with contextlib.suppress(TimeoutError):
            while sent < size:
                sent += connection.send(data[: size - sent])
        assert sent < 30_000_000, "nobody reads, and yet it was all taken"
        stalled.set()
        connection.settimeout(WAIT_S)
        while sent < size:
            sent += connection.send(data[: size - sent])

    with serving(script) as server:
        caller = Caller(daemon, server.port)
        with caller.connected() as connection:
            before_kib = resident_kib(daemon)
            connection.sendall(caller.head())
            assert stalled.wait(WAIT_S)
            assert resident_kib(daemon) - before_kib < 16_384
            assert len(answer_of(connection)[1]) == size


def ends_with_its_client(request: bytes, first: bytes, reached: threading.Event) -> Script:
    """Wait for the request, say that it is there, answer with ``first`` and see the connection end."""

    def script(connection: socket.socket) -> None:
        read_until(connection, request)
        reached.set()
        connection.sendall(first)
        assert connection.recv(1) == b""

    return script


@pytest.mark.parametrize(
    "first",
    [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nab", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"],
    ids=["before the head", "in a sized body", "in a chunked body"],
)
def test_a_client_that_leaves_ends_the_servers_work(daemon: RunningDaemon, first: bytes) -> None:
    reached = threading.Event()
    with serving(ends_with_its_client(b"\r\n\r\n", first, reached), is_ended_by_peer=True) as server:
        caller = Caller(daemon, server.port)
        with caller.connected() as connection:
            connection.sendall(caller.head())
            assert reached.wait(WAIT_S)
            if first:
                assert connection.recv(12) == b"HTTP/1.1 200"


def test_a_client_that_leaves_in_its_body_ends_the_servers_work(daemon: RunningDaemon) -> None:
    reached = threading.Event()
    with serving(ends_with_its_client(b"half", b"", reached), is_ended_by_peer=True) as server:
        caller = Caller(daemon, server.port)
        with caller.connected() as connection:
            connection.sendall(caller.head("POST", "/", "Content-Length: 8") + b"half")
            assert reached.wait(WAIT_S)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n8\r\nhalf",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\nzz\r\n",
    ],
)
def test_half_an_answer_never_passes_for_a_whole_one(daemon: RunningDaemon, answer: bytes) -> None:
    def script(connection: socket.socket) -> None:
        read_head(connection)
        connection.sendall(answer)

    with serving(script) as server:
        caller = Caller(daemon, server.port)
        try:
            status = caller.ask(caller.head())[0].status
        except http.client.IncompleteRead:
            status = 502
        assert status == 502


def test_a_server_may_answer_before_it_has_read_the_body_and_leave(daemon: RunningDaemon) -> None:
    def script(connection: socket.socket) -> None:
        read_head(connection)
        connection.sendall(sized(b"no", status="403 Forbidden"))
        connection.shutdown(socket.SHUT_WR)
        read_rest(connection)

    with serving(script) as server:
        caller = Caller(daemon, server.port)
        with caller.connected() as connection:
            connection.sendall(caller.head("POST", "/", "Content-Length: 50000000"))
            with contextlib.suppress(OSError):
                connection.sendall(bytes(1_000_000))
            assert answer_of(connection)[0].status == 403


def descriptors(pid: int) -> int:
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())


def hammer(daemon: RunningDaemon, server: GuestServer, count: int) -> None:
    """Send requests in turn, over one connection after the other."""
    caller = Caller(daemon, server.port)
    for start in range(0, count, 100):
        with caller.connected() as connection:
            for _ in range(start, min(start + 100, count)):
                connection.sendall(caller.head())
                assert answer_of(connection)[1] == b"hello"


@pytest.mark.parametrize("count", [1_000, pytest.param(10_000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("answer", [sized(b"hello"), b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello"])
def test_thousands_of_requests_leave_nothing_behind(daemon: RunningDaemon, count: int, answer: bytes) -> None:
    def script(connection: socket.socket) -> None:
        while read_head(connection):
            connection.sendall(answer)
            if b"close" in answer:
                return

    with serving(script) as server:
        hammer(daemon, server, 200)
        before, before_kib = descriptors(daemon.process.pid), resident_kib(daemon)
        hammer(daemon, server, count)
        # Waited for: the daemon sees a moment later that a client has gone, and may be reading files of its own.
        wait_until(lambda: descriptors(daemon.process.pid) <= before + 2, "no descriptor left behind")
        assert resident_kib(daemon) - before_kib < 4_096
