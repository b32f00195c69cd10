"""Whatever a server in a sandbox answers, the client's next answer on that connection is the next server's, whole."""

from __future__ import annotations

import http.client
import socket

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.server.daemon import RunningDaemon
from tests.server.proxy.stage import Caller, answer_of, answering, read_head, serving, sized

pytestmark = pytest.mark.usefixtures("sandbox")

GOOD = b"the next server's own words"
WHOLE = (
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n",
    b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
    b"HTTP/1.0 200 OK\r\n\r\nto the end",
)
PIECES = (
    *(
        b"\r\n",
        b"\n",
        b"\r",
        b"\0",
        b" ",
        b":",
        b";",
        b"0",
        b"-",
        b"ffffffff",
        b"\r\n\r\n",
        b"0\r\n\r\n",
        b"5\r\nhello\r\n",
    ),
    *(
        b"Content-Length: 3\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Connection: close\r\n",
        b"Connection: upgrade\r\n",
    ),
    *(
        b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
        b"HTTP/1.1 101 Go\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    ),
)


@st.composite
def answers(draw: st.DrawFn) -> bytes:
    """Draw an answer that was right before pieces were put in, or taken out, anywhere."""
    answer = draw(st.sampled_from(WHOLE))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(answer)))
        answer = answer[:at] + draw(st.sampled_from(PIECES)) + answer[at + draw(st.integers(0, 6)) :]
    return answer


class Hostile:
    """A server that answers as it is told."""

    def __init__(self) -> None:
        self.answer = b""

    def __call__(self, connection: socket.socket) -> None:
        read_head(connection)
        connection.sendall(self.answer)


def test_no_answer_of_one_server_reaches_into_anothers(daemon: RunningDaemon) -> None:
    hostile = Hostile()

    @settings(max_examples=200, deadline=None)
    @given(answer=answers())
    def judge(answer: bytes) -> None:
        hostile.answer = answer
        with Caller(daemon, first.port).connected() as connection:
            connection.sendall(Caller(daemon, first.port).head())
            try:
                got, _ = answer_of(connection)
            except (http.client.HTTPException, ConnectionError):
                return  # broken off in the middle: the connection is of no more use, and that can be seen
            if got.will_close:
                return
            connection.sendall(Caller(daemon, second.port).head())
            assert answer_of(connection)[1] == GOOD

    with serving(hostile) as first, serving(answering(sized(GOOD))) as second:
        judge()
