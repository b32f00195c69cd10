"""Whatever a client sends, a server in a sandbox sees well-formed requests, and none that was hidden in another."""

from __future__ import annotations

import contextlib
import socket

import httptools
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.server.daemon import RunningDaemon
from tests.server.proxy.stage import Caller, read_head, serving, sized
from tests.server.test_app import ask

pytestmark = pytest.mark.usefixtures("sandbox")

UNFINISHED_S = 0.1
"""A request that has lost its end is not answered; so long it may take to be sure."""
HIDDEN = b"GET /hidden HTTP/1.1\r\nHost: x\r\n\r\n"
PIECES = (
    *(
        b"\r\n",
        b"\n",
        b"\r",
        b"\0",
        b" ",
        b"\t",
        b":",
        b",",
        b";",
        b"0",
        b"-",
        b"+",
        b"ffffffff",
        b"\r\n\r\n",
        b"0\r\n\r\n",
    ),
    *(
        b"Content-Length: 3\r\n",
        b"Content-Length: 0\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: x\r\n",
    ),
    *(b"Connection: close, Content-Length\r\n", b"Connection: Transfer-Encoding\r\n", b"Expect: 100-continue\r\n"),
    *(b"Connection: upgrade\r\nUpgrade: websocket\r\n", b"Trailer: Content-Length\r\n", HIDDEN),
)


class Judge:
    """A server that notes what it is asked, by another parser than the proxy's."""

    def __init__(self) -> None:
        self.targets: list[bytes] = []
        self.faults: list[str] = []
        self.arrived = 0

    def __call__(self, connection: socket.socket) -> None:
        parser = httptools.HttpRequestParser(Notes(self, connection))
        with contextlib.suppress(ConnectionError):
            while data := connection.recv(65_536):
                try:
                    parser.feed_data(data)
                except httptools.HttpParserUpgrade:
                    return
                except httptools.HttpParserError as error:
                    self.faults.append(f"{error}: {data!r}")
                    return


class Notes:
    """The parser's callbacks for one connection."""

    def __init__(self, judge: Judge, connection: socket.socket) -> None:
        self._judge = judge
        self._connection = connection

    def on_url(self, url: bytes) -> None:
        self._judge.targets.append(url)
        self._judge.arrived += 1

    def on_message_complete(self) -> None:
        with contextlib.suppress(ConnectionError):  # it has gone meanwhile; the parser would take that for a fault
            self._connection.sendall(sized(b"ok"))


@st.composite
def mutations(draw: st.DrawFn) -> list[tuple[float, bytes, int]]:
    """Draw where in a request what is put in, and how much is taken out."""
    one = st.tuples(st.floats(0, 1), st.sampled_from(PIECES), st.integers(0, 4))
    return draw(st.lists(one, min_size=1, max_size=4))


@pytest.mark.parametrize(
    ("line", "body"),
    [
        (b"Content-Length: %d\r\n" % len(HIDDEN), HIDDEN),
        (b"Transfer-Encoding: chunked\r\n", b"%x\r\n%b\r\n0\r\n\r\n" % (len(HIDDEN), HIDDEN)),
    ],
    ids=["sized", "chunked"],
)
def test_no_request_hides_in_another(daemon: RunningDaemon, line: bytes, body: bytes) -> None:
    judge = Judge()

    @settings(max_examples=150, deadline=None)
    @given(mutations())
    def send(changes: list[tuple[float, bytes, int]]) -> None:
        judge.targets.clear()
        whole = caller.head("POST", "/seen")[:-2] + line + b"\r\n" + body
        fixed = whole.index(b"\r\n") + 2  # the request line leads to the sandbox
        changing = whole[fixed:]
        for where, piece, taken in changes:
            at = int(where * len(changing))
            changing = changing[:at] + piece + changing[at + taken :]
        with caller.connected() as connection, contextlib.suppress(ConnectionError):
            connection.settimeout(UNFINISHED_S)
            connection.sendall(whole[:fixed] + changing)
            try:
                read_head(connection)
            except TimeoutError:
                assert ask(daemon, "GET", "/health")[0] == 200, "it has time for us again, if it had none"
                with contextlib.suppress(TimeoutError):
                    read_head(connection)
        assert judge.faults == []
        assert set(judge.targets) <= {b"/seen"}

    with serving(judge) as server:
        caller = Caller(daemon, server.port)
        send()
    assert judge.arrived > 5, "hardly any request came through, so nothing was tried"
