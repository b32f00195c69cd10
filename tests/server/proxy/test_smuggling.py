"""Hostile heads and bodies from both sides: what could be read in two ways is refused, or written anew in one."""

from __future__ import annotations

import http.client
import json
import socket

import pytest
from tests.server.daemon import RunningDaemon
from tests.server.proxy.stage import TIMEOUT_S, Caller, answer_of, read_head, read_rest, read_until, serving, sized

pytestmark = pytest.mark.usefixtures("sandbox")

SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"


def exchange(daemon: RunningDaemon, tail: bytes, *lines: str, method: str = "POST") -> tuple[bytes, list[bytes]]:
    """Send a head with these lines and what follows; gives all that came back and the heads the server saw."""
    heads: list[bytes] = []

    def script(connection: socket.socket) -> None:
        while head := read_head(connection):
            heads.append(head)
            connection.sendall(sized(b"ok"))

    with serving(script) as server:
        caller = Caller(daemon, server.port)
        with caller.connected() as connection:
            connection.sendall(caller.head(method, "/", *lines) + tail)
            connection.shutdown(socket.SHUT_WR)
            return read_rest(connection), heads


@pytest.mark.parametrize(
    "lines",
    [
        ("Content-Length: 4", "Transfer-Encoding: chunked"),
        ("Transfer-Encoding: chunked", "Content-Length: 4"),
        ("Content-Length: 4", "Content-Length: 40"),
        ("Content-Length: 4, 40",),
        ("Content-Length: +4",),
        ("Content-Length: -1",),
        ("Content-Length: 0x4",),
        ("Content-Length: 99999999999999999999999999",),
        ("Transfer-Encoding: xchunked",),
        ("Transfer-Encoding: chunked, identity",),
        ("Transfer-Encoding: gzip, chunked",),
        ("Transfer-Encoding: chunked", "Transfer-Encoding: chunked"),
        ("Transfer-Encoding: \x0bchunked",),
        ("Transfer-Encoding : chunked",),
        ("X: y\r\n Transfer-Encoding: chunked",),
        ("X: a\rb",),
        ("X: a\x00b",),
        ("X y: a",),
        (": empty",),
    ],
    ids=repr,
)
def test_a_request_that_two_could_read_differently_reaches_no_server(
    daemon: RunningDaemon, lines: tuple[str, ...]
) -> None:
    came, heads = exchange(daemon, b"0\r\n\r\n" + SMUGGLED, *lines)
    assert b" 200 OK" not in came.partition(b"\r\n")[0] or heads == []
    assert not any(b"smuggled" in head for head in heads)
    assert came.startswith(b"HTTP/1.1 400 ") or came == b""


@pytest.mark.parametrize(
    ("line", "lines"),
    [
        ("GET {} HTTP/1.1", []),
        ("GET {} HTTP/1.1", ["Host: hearth", "Host: hearth"]),
        ("GET {} HTTP/1.1", ["Host: hearth", "Host: evil.example"]),
        ("GET {} HTTP/1.1", ["Host : hearth"]),
        ("GET {} HTTP/1.1", [" Host: hearth"]),
        ("GET {} HTTP/1.0", ["Host: hearth", "Host: evil.example"]),
        ("GET {} HTTP/2.0", ["Host: hearth"]),
        ("GET {} HTTP/0.9", ["Host: hearth"]),
        ("GET {} HTTP/1.2", ["Host: hearth"]),
        ("GET {} http/1.1", ["Host: hearth"]),
        ("GET {}", ["Host: hearth"]),
        ("GET {} HTTP/1.1 ", ["Host: hearth"]),
        ("GET {} evil HTTP/1.1", ["Host: hearth"]),
        ("GET\t{} HTTP/1.1", ["Host: hearth"]),
        ("G=T {} HTTP/1.1", ["Host: hearth"]),
        ("GET http://evil.example{} HTTP/1.1", ["Host: hearth"]),
        ("GET http://hearth@evil.example{} HTTP/1.1", ["Host: hearth"]),
        ("GET //hearth{} HTTP/1.1", ["Host: hearth"]),
        ("CONNECT hearth:80 HTTP/1.1", ["Host: hearth"]),
        ("CONNECT {} HTTP/1.1", ["Host: hearth"]),
        ("OPTIONS * HTTP/1.1", ["Host: hearth"]),
        ("PRI * HTTP/2.0", []),
        ("GET {}\x00 HTTP/1.1", ["Host: hearth"]),
        ("GET {}\xe9 HTTP/1.1", ["Host: hearth"]),
        ("GET {}#x HTTP/1.1", ["Host: hearth"]),
    ],
    ids=repr,
)
def test_a_head_that_is_not_one_request_for_one_host_reaches_no_server(
    daemon: RunningDaemon, line: str, lines: list[str]
) -> None:
    heads: list[bytes] = []

    def script(connection: socket.socket) -> None:
        while head := read_head(connection):
            heads.append(head)
            connection.sendall(sized(b"ok"))

    with serving(script) as server:
        caller = Caller(daemon, server.port)
        told = [line.replace("{}", f"{caller.base}/"), *lines, f"Authorization: Bearer {daemon.token}", "", ""]
        with caller.connected() as connection:
            connection.sendall("\r\n".join(told).encode("latin-1"))
            connection.shutdown(socket.SHUT_WR)
            came = read_rest(connection)
        with caller.connected() as connection:  # and one in the absolute form that says the same twice is one request
            absolute = caller.head("GET", "/").replace(b" /api", b" http://HEARTH/api", 1)
            connection.sendall(absolute)
            assert answer_of(connection)[1] == b"ok"
    assert came.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 404 ", b"HTTP/1.1 405 ")) or came == b""
    assert len(heads) == 1


@pytest.mark.parametrize("extension", [b";a=b", b";" + b"x" * 5_000, b';a="b;c"'], ids=lambda value: repr(value)[:20])
def test_what_is_said_beside_a_chunk_stays_there(daemon: RunningDaemon, extension: bytes) -> None:
    got: list[bytes] = []

    def script(connection: socket.socket) -> None:
        read_head(connection)
        got.append(read_until(connection, b"0\r\n\r\n"))
        connection.sendall(sized(b"ok"))

    with serving(script) as server:
        caller = Caller(daemon, server.port)
        with caller.connected() as connection:
            body = b"5%b\r\nhello\r\n0%b\r\n\r\n" % (extension, extension)
            connection.sendall(caller.head("POST", "/", "Transfer-Encoding: chunked") + body)
            assert answer_of(connection)[1] == b"ok"
    assert got == [b"5\r\nhello\r\n0\r\n\r\n"]


@pytest.mark.parametrize("line", ["Content-Length: 5", "Transfer-Encoding: chunked"])
def test_an_upgrade_with_a_body_is_refused_as_nobody_agrees_where_it_ends(daemon: RunningDaemon, line: str) -> None:
    lines = ("Connection: Upgrade", "Upgrade: websocket", line)
    came, heads = exchange(daemon, b"5\r\nhello\r\n0\r\n\r\n" + SMUGGLED, *lines, method="GET")
    assert came.startswith(b"HTTP/1.1 400 ")
    assert heads == []


def test_what_follows_an_upgrade_that_was_declined_is_no_request(daemon: RunningDaemon) -> None:
    got: list[bytes] = []

    def script(connection: socket.socket) -> None:
        read_head(connection)
        connection.sendall(sized(b"ok"))
        got.append(read_rest(connection))

    with serving(script, is_ended_by_peer=True) as server:
        caller = Caller(daemon, server.port)
        with caller.connected() as connection:
            connection.sendall(caller.head("GET", "/", "Connection: Upgrade", "Upgrade: websocket") + SMUGGLED)
            came = read_rest(connection)
    assert came.startswith(b"HTTP/1.1 200 ")
    assert came.count(b"HTTP/1.1") == 1
    assert got == [b""]


@pytest.mark.parametrize(
    "body",
    [
        b"5;a\nb\r\nhello\r\n0\r\n\r\n",
        b"5;a\rb\r\nhello\r\n0\r\n\r\n",
        b"5 ;\r\nhello\r\n0\r\n\r\n",
        b"zz\r\nhello\r\n0\r\n\r\n",
        b"5\r\nhello0\r\n\r\n",
        b"-5\r\nhello\r\n0\r\n\r\n",
        b"ffffffffffffffffff\r\nhello\r\n0\r\n\r\n",
        b"5\nhello\n0\n\n",
        b"0x5\r\nhello\r\n0\r\n\r\n",
    ],
    ids=repr,
)
def test_bad_chunks_end_the_request(daemon: RunningDaemon, body: bytes) -> None:
    got: list[bytes] = []

    def script(connection: socket.socket) -> None:
        if read_head(connection):
            got.append(read_rest(connection))

    with serving(script) as server:
        caller = Caller(daemon, server.port)
        with caller.connected() as connection:
            connection.sendall(caller.head("POST", "/", "Transfer-Encoding: chunked") + body + SMUGGLED)
            came = read_rest(connection)
    assert b"200 OK" not in came
    assert not any(b"smuggled" in data or data.endswith(b"0\r\n\r\n") for data in got)


def test_a_pipelined_request_is_a_request_of_its_own_with_a_token_of_its_own(daemon: RunningDaemon) -> None:
    heads: list[bytes] = []

    def script(connection: socket.socket) -> None:
        heads.append(read_head(connection))
        assert connection.recv(4) == b"body"
        connection.sendall(sized(b"ok"))

    with serving(script) as server:
        caller = Caller(daemon, server.port)
        with caller.connected() as connection:
            connection.sendall(caller.head("POST", "/", "Content-Length: 4") + b"body" + SMUGGLED)
            assert read_head(connection).startswith(b"HTTP/1.1 200 ")
            assert connection.recv(2) == b"ok"
            assert read_head(connection).startswith(b"HTTP/1.1 404 ")
    assert len(heads) == 1


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!", None),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nhello", None),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nhello", None),
        (b"HTTP/1.1 200 OK\r\nX y: 1\r\nContent-Length: 0\r\n\r\n", None),
        (b"HTTP/1.1 200 OK\r\nX: \x00\r\nContent-Length: 0\r\n\r\n", None),
        (b"HTTP/1.1 200 OK\r\nX: " + b"a" * 100_000 + b"\r\n\r\n", None),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", None),
        (b"SSH-2.0-OpenSSH_9.2p1\r\n", None),
        (b"", None),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            b"hello",
        ),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello", b"hello"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhelloHTTP/1.1 200 OK\r\n\r\nevil", b"hello"),
    ],
    ids=lambda value: repr(value)[:60],
)
def test_an_answer_is_given_in_one_reading_or_not_at_all(
    daemon: RunningDaemon, answer: bytes, expected: bytes | None
) -> None:
    def script(connection: socket.socket) -> None:
        read_head(connection)
        connection.sendall(answer)

    with serving(script) as server:
        caller = Caller(daemon, server.port)
        with caller.connected() as connection:
            connection.sendall(caller.head())
            got, body = answer_of(connection)
            if expected is None:
                assert got.status == 502
                return
            assert (got.status, body) == (200, expected)
            assert not (got.getheader("content-length") and got.getheader("transfer-encoding"))
            connection.sendall(caller.head())  # it is the next answer that comes, not what was left of this one
            assert answer_of(connection)[1] == expected


def problem_in(answer: bytes) -> dict[str, str]:
    """Give the problem that an answer which ends the connection holds, and nothing besides."""
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"\r\ncontent-length: %d" % len(body) in head
    problem: dict[str, str] = json.loads(body)
    return problem


@pytest.mark.parametrize(
    "lines",
    [("X-Long: " + "a" * 70_000,), tuple(f"X-{number}: 1" for number in range(300))],
    ids=["long", "many"],
)
def test_heads_beyond_all_need_are_refused(daemon: RunningDaemon, lines: tuple[str, ...]) -> None:
    came, heads = exchange(daemon, b"", *lines, method="GET")
    assert came.startswith(b"HTTP/1.1 431 ")
    assert problem_in(came)["code"] == "too_large"
    assert heads == []


def test_what_is_no_request_is_refused_in_the_shape_of_all_errors(daemon: RunningDaemon) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(TIMEOUT_S)
        client.connect(str(daemon.data.api_socket))
        client.sendall(b"nothing of the kind\r\n\r\n")
        with client.makefile("rb") as answer:
            problem = problem_in(answer.read())
    assert problem["code"] == "invalid"
    assert set(problem) == {"error", "code", "details", "resolution", "request_id"}


def test_trailers_beyond_all_need_end_the_request(daemon: RunningDaemon) -> None:
    tail = b"0\r\n" + b"".join(b"X-%d: 1\r\n" % number for number in range(300)) + b"\r\n"
    came, _ = exchange(daemon, tail, "Transfer-Encoding: chunked")
    assert b"200 OK" not in came


def test_an_answer_of_headers_without_end_is_502(daemon: RunningDaemon) -> None:
    def script(connection: socket.socket) -> None:
        read_head(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\n")
        try:
            while True:
                connection.sendall(b"X-More: and more\r\n" * 1000)
        except ConnectionError:
            return

    with serving(script) as server:
        caller = Caller(daemon, server.port)
        assert caller.ask(caller.head())[0].status == 502


def test_a_redirect_to_the_server_itself_leads_back_through_the_proxy(daemon: RunningDaemon) -> None:
    def script(connection: socket.socket) -> None:
        port = connection.getsockname()[1]
        read_head(connection)
        connection.sendall(
            b"HTTP/1.1 302 Found\r\nLocation: http://localhost:%d/in?x\r\nContent-Length: 0\r\n\r\n" % port
        )

    with serving(script) as server:
        caller = Caller(daemon, server.port)
        answer: http.client.HTTPResponse
        answer, _ = caller.ask(caller.head())
        assert answer.getheader("location") == f"http://hearth{caller.base}/in?x"
