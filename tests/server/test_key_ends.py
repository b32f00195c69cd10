"""What was opened with a key ends with it: streams, followed output, terminals, and ways to ports."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import time
from collections.abc import Callable, Iterator

import pytest
from tests.server.daemon import RunningDaemon
from tests.server.sockets import opened
from tests.server.test_app import UnixConnection

from hearth.api.limits import NDJSON
from hearth.sdk.client import Client, Sandbox
from hearth.server.standing import LOOK_S

WAIT_S = 60
ROUNDS = 5
FOREVER = ["sh", "-c", "echo up; exec sleep 1000"]
Ending = Callable[[Client, str], None]


def revoked(client: Client, key: str) -> None:
    client.users.revoke_key(key)


def replaced(client: Client, key: str) -> None:
    client.users.rotate_key(key=key)


@contextlib.contextmanager
def begun(
    daemon: RunningDaemon, token: str, method: str, path: str, body: object = None, **headers: str
) -> Iterator[http.client.HTTPResponse]:
    """Open an answer of which no line may be long in coming."""
    with contextlib.closing(UnixConnection(str(daemon.data.api_socket))) as connection:
        connection.connect()
        connection.sock.settimeout(WAIT_S)
        content = None if body is None else json.dumps(body)
        connection.request(method, path, content, {"Authorization": f"Bearer {token}", **headers})
        with connection.getresponse() as answer:
            yield answer


@pytest.fixture(params=[revoked, replaced])
def ending(request: pytest.FixtureRequest) -> Ending:
    made: Ending = request.param
    return made


@pytest.fixture
def key(client: Client) -> Iterator[tuple[str, Callable[[Ending], None]]]:
    made = client.users.create_key(name="passing")
    yield made.secret, lambda ending: ending(client, made.key.id)
    for each in client.users.keys_of():
        if each.valid and each.name == "passing":
            client.users.revoke_key(each.id)


Key = tuple[str, Callable[[Ending], None]]


def test_a_stream_of_events_ends(daemon: RunningDaemon, key: Key, ending: Ending) -> None:
    with begun(daemon, key[0], "GET", "/api/v1/events") as answer:
        assert answer.readline() == b"retry: 2000\n"
        key[1](ending)
        while answer.readline():
            continue


def test_an_end_is_told_and_not_found_by_looking(daemon: RunningDaemon, client: Client) -> None:
    def is_told() -> bool:
        made = client.users.create_key(name="passing")
        with begun(daemon, made.secret, "GET", "/api/v1/events") as answer:
            assert answer.readline() == b"retry: 2000\n"
            began_s = time.monotonic()
            client.users.revoke_key(made.key.id)
            while answer.readline():
                continue
        return time.monotonic() - began_s < LOOK_S / 2

    assert any(is_told() for _ in range(ROUNDS)), "a host may stand still for a while, but not each time"


def test_the_stream_of_a_command_tells_why_and_ends_with_it(daemon: RunningDaemon, sandbox: Sandbox, key: Key) -> None:
    path = f"/api/v1/sandboxes/{sandbox.id}/exec"
    with begun(daemon, key[0], "POST", path, {"cmd": FOREVER}, Accept=NDJSON) as answer:
        assert json.loads(answer.readline()) == {"type": "stdout", "data": "up\n"}
        key[1](revoked)
        assert json.loads(answer.readline())["code"] == "unauthenticated"
        assert answer.readline() == b""
        exec_id = answer.getheader("X-Exec-ID")
    with begun(daemon, daemon.token, "GET", f"/api/v1/execs/{exec_id}/output") as ended:
        assert json.loads(ended.readlines()[-1])["code"] == "cancelled"


def test_a_followed_commands_output_tells_why_and_ends(
    daemon: RunningDaemon, client: Client, sandbox: Sandbox, key: Key, ending: Ending
) -> None:
    started = sandbox.detach(FOREVER)
    with begun(daemon, key[0], "GET", f"/api/v1/execs/{started.id}/output") as answer:
        assert json.loads(answer.readline())["data"] == "up\n"
        key[1](ending)
        assert json.loads(answer.readline())["code"] == "unauthenticated"
        assert answer.readline() == b""
    assert client.commands.get(started.id).state == "running"
    client.commands.kill(started.id)


def test_a_terminal_is_closed(daemon: RunningDaemon, sandbox: Sandbox, key: Key, ending: Ending) -> None:
    with opened(daemon, f"{sandbox.id}/ws?new=true", token=key[0]) as terminal:
        terminal.first()
        terminal.connection.recv(timeout=WAIT_S)  # the shell's first word: it runs
        key[1](ending)
        told, code = terminal.end()
        assert (told["code"], code) == ("unauthenticated", 4401)


@pytest.mark.parametrize("way", ["proxy", "tunnel"])
def test_a_way_to_a_port_is_cut(daemon: RunningDaemon, sandbox: Sandbox, key: Key, way: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        path = f"/api/v1/sandboxes/{sandbox.id}/{way}/{listener.getsockname()[1]}"
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.settimeout(WAIT_S)
            client.connect(str(daemon.data.api_socket))
            upgrade = "Connection: Upgrade\r\nUpgrade: hearth-tunnel\r\n" if way == "tunnel" else ""
            head = f"GET {path} HTTP/1.1\r\nHost: hearth\r\nAuthorization: Bearer {key[0]}\r\n{upgrade}\r\n"
            client.sendall(head.encode())
            listener.settimeout(WAIT_S)
            server, _ = listener.accept()
            with server:
                if way == "proxy":
                    server.sendall(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n")
                else:
                    server.sendall(b"first")
                received = b""
                while b"first" not in received:
                    received += client.recv(4096)
                key[1](revoked)
                assert client.recv(4096) == b""
                server.settimeout(WAIT_S)
                while server.recv(4096):
                    continue
