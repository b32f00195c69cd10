"""Both transports against a scripted server on a real socket: reuse, repetition, refusals, silence."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from hearth.errors import HearthError, TimedOut, Unavailable
from hearth.sdk.async_transport import AsyncTransport
from hearth.sdk.endpoint import Endpoint
from hearth.sdk.http1 import ConnectionLost, HttpRequest, HttpResponse
from hearth.sdk.transport import Transport

GET = HttpRequest(method="GET", target="/", timeout_s=60, accept="application/json")
POST = HttpRequest(method="POST", target="/", timeout_s=60, accept="application/json", body=b"{}")
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
CLOSING = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}"
Script = list[list[bytes | None]]
Fetch = Callable[[HttpRequest], Awaitable[HttpResponse]]


class ScriptedServer:
    """Answers each request on each connection with the next bytes of its script; None ends the connection instead."""

    def __init__(self, path: Path, script: Script) -> None:
        self.path = path
        self.requests: list[bytes] = []
        self.connections_ended = threading.Semaphore(0)
        self._script = script
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        self._listener.listen()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        for answers in self._script:
            with contextlib.suppress(OSError):
                connection, _ = self._listener.accept()
                with connection:
                    for answer in answers:
                        request = connection.recv(65536)
                        if not request:
                            break
                        self.requests.append(request)
                        if answer is None:
                            break
                        connection.sendall(answer)
                    else:
                        if answers and answers[-1] not in (OK, CLOSING):
                            connection.recv(65536)  # wait until the client gives up
                self.connections_ended.release()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(60)


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[[Script], ScriptedServer]]:
    with contextlib.ExitStack() as servers:

        def start(script: Script) -> ScriptedServer:
            server = ScriptedServer(tmp_path / "s.sock", script)
            servers.callback(server.close)
            return server

        yield start


@pytest.fixture(params=["blocking", "asyncio"])
async def fetch(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Fetch]:
    endpoint = Endpoint(socket_path=tmp_path / "s.sock", token="hk_1")
    if request.param == "asyncio":
        transport = AsyncTransport(endpoint)
        yield transport.fetch
        await transport.close()
        return
    blocking = Transport(endpoint)

    async def fetch_in_thread(each: HttpRequest) -> HttpResponse:
        return await asyncio.to_thread(blocking.fetch, each)

    yield fetch_in_thread
    blocking.close()
    await asyncio.get_running_loop().shutdown_default_executor()


async def test_one_connection_serves_one_request_after_the_other(
    serve: Callable[[Script], ScriptedServer], fetch: Fetch
) -> None:
    server = serve([[OK, OK, CLOSING]])
    for request in (GET, POST, GET):
        assert (await fetch(request)).body == b"{}"
    assert [each.split(b" ")[0] for each in server.requests] == [b"GET", b"POST", b"GET"]


async def test_a_connection_the_server_closed_is_not_used_again(
    serve: Callable[[Script], ScriptedServer], fetch: Fetch
) -> None:
    server = serve([[OK], [OK]])
    await fetch(POST)
    await asyncio.to_thread(server.connections_ended.acquire, timeout=60)
    await asyncio.sleep(0)
    assert (await fetch(POST)).status == 200
    assert len(server.requests) == 2


async def test_a_get_that_met_a_dying_connection_is_repeated_once(
    serve: Callable[[Script], ScriptedServer], fetch: Fetch
) -> None:
    server = serve([[OK, None], [OK]])
    await fetch(GET)
    assert (await fetch(GET)).status == 200
    assert len(server.requests) == 3


async def test_a_post_is_never_sent_twice(serve: Callable[[Script], ScriptedServer], fetch: Fetch) -> None:
    server = serve([[OK, None], [OK]])
    await fetch(GET)
    with pytest.raises(ConnectionLost) as lost:
        await fetch(POST)
    assert not lost.value.answered
    assert len(server.requests) == 2


async def test_an_answer_cut_short_is_an_error(serve: Callable[[Script], ScriptedServer], fetch: Fetch) -> None:
    serve([[OK[:-1], None]])
    with pytest.raises(HearthError):
        await fetch(HttpRequest(method="POST", target="/", timeout_s=0.3, accept="", body=b"{}"))


async def test_silence_ends_with_the_time_limit(serve: Callable[[Script], ScriptedServer], fetch: Fetch) -> None:
    serve([[b""]])
    with pytest.raises(TimedOut):
        await fetch(HttpRequest(method="GET", target="/", timeout_s=0.2, accept=""))


async def test_nobody_there_says_how_to_start_the_daemon(fetch: Fetch) -> None:
    with pytest.raises(Unavailable, match="hearth serve"):
        await fetch(GET)
