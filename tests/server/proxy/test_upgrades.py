"""Connections that stop being HTTP: WebSockets through the proxy, and tunnels."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import socket
import threading

import pytest
from tests.server.daemon import RunningDaemon
from tests.server.proxy.stage import (
    Caller,
    answer_of,
    answering,
    fields_of,
    read_head,
    read_rest,
    read_until,
    serving,
    sized,
)

pytestmark = pytest.mark.usefixtures("sandbox")

KEY = base64.b64encode(bytes(16)).decode()
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
UPGRADE = (
    "Connection: keep-alive, Upgrade",
    "Upgrade: websocket",
    f"Sec-WebSocket-Key: {KEY}",
    "Sec-WebSocket-Version: 13",
)
TUNNEL = ("Connection: Upgrade", "Upgrade: hearth-tunnel")


def accept_websocket(connection: socket.socket) -> bytes:
    """Answer the handshake and give the head that asked for it."""
    head = read_head(connection)
    key = dict(fields_of(head))["sec-websocket-key"].encode()
    accept = base64.b64encode(hashlib.sha1(key + GUID).digest())
    connection.sendall(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: %b\r\n\r\n" % accept
    )
    return head


def frame(payload: bytes, *, opcode: int = 2, masked: bool = False) -> bytes:
    """Write a WebSocket frame of less than 64 KiB."""
    size = len(payload)
    mark = 0x80 if masked else 0
    head = (
        bytes([0x80 | opcode, mark | size])
        if size < 126
        else bytes([0x80 | opcode, mark | 126]) + size.to_bytes(2, "big")
    )
    return head + (bytes(4) if masked else b"") + payload


def test_a_websocket_passes_both_ways_byte_by_byte(daemon: RunningDaemon) -> None:
    heads: list[bytes] = []
    data = os.urandom(60_000)

    def script(connection: socket.socket) -> None:
        heads.append(accept_websocket(connection))
        connection.sendall(frame(b"early"))
        sent = frame(data, masked=True)
        assert read_until(connection, sent[-100:]) == sent
        connection.sendall(frame(data))
        assert read_rest(connection) == frame(b"", opcode=8, masked=True)
        connection.sendall(frame(b"", opcode=8))

    with serving(script) as server:
        caller = Caller(daemon, server.port)
        with caller.connected() as connection:
            connection.sendall(caller.head("GET", "/socket", *UPGRADE, "Sec-WebSocket-Protocol: vite-hmr"))
            head = read_head(connection)
            assert head.startswith(b"HTTP/1.1 101 ")
            told = dict(fields_of(head))
            assert (told["upgrade"], told["connection"]) == ("websocket", "upgrade")
            assert told["sec-websocket-accept"] == "ICX+Yqv66kxgM0FcWaLWlFLwTAI="
            assert read_until(connection, frame(b"early")) == frame(b"early")
            connection.sendall(frame(data, masked=True))
            assert read_until(connection, frame(data)[-100:]) == frame(data)
            connection.sendall(frame(b"", opcode=8, masked=True))
            connection.shutdown(socket.SHUT_WR)
            assert read_rest(connection) == frame(b"", opcode=8)
    told = dict(fields_of(heads[0]))
    assert (told["upgrade"], told["connection"]) == ("websocket", "upgrade")
    assert told["sec-websocket-protocol"] == "vite-hmr"


def test_a_browsers_token_comes_in_the_query_and_goes_no_further(daemon: RunningDaemon) -> None:
    heads: list[bytes] = []

    def script(connection: socket.socket) -> None:
        heads.append(accept_websocket(connection))
        read_rest(connection)

    with serving(script) as server:
        caller = Caller(daemon, server.port)
        with caller.connected() as connection:
            lines = "\r\n".join(["Host: hearth", *UPGRADE, "", ""])
            connection.sendall(f"GET {caller.base}/s?a=1&token={daemon.token}&b=2 HTTP/1.1\r\n{lines}".encode())
            assert read_head(connection).startswith(b"HTTP/1.1 101 ")
    assert heads[0].startswith(b"GET /s?a=1&b=2 HTTP/1.1\r\n")
    assert daemon.token.encode() not in heads[0]
    assert daemon.token not in daemon.log_file.read_text()


def test_a_token_in_the_query_is_no_token_for_anything_else(daemon: RunningDaemon) -> None:
    caller = Caller(daemon, 80)
    answer, _ = caller.ask(f"GET {caller.base}/?token={daemon.token} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
    assert answer.status == 401


def test_a_server_that_declines_an_upgrade_is_heard(daemon: RunningDaemon) -> None:
    with serving(answering(sized(b"no sockets here", status="426 Upgrade Required"))) as server:
        caller = Caller(daemon, server.port)
        with caller.connected() as connection:
            connection.sendall(caller.head("GET", "/", *UPGRADE))
            answer, body = answer_of(connection)
            assert (answer.status, body) == (426, b"no sockets here")
            assert read_rest(connection) == b""


def test_a_client_that_vanishes_ends_the_servers_side(daemon: RunningDaemon) -> None:
    ended = threading.Event()

    def script(connection: socket.socket) -> None:
        accept_websocket(connection)
        assert read_rest(connection) == b""
        ended.set()

    with serving(script, is_ended_by_peer=True) as server:
        caller = Caller(daemon, server.port)
        with caller.connected() as connection:
            connection.sendall(caller.head("GET", "/", *UPGRADE))
            assert read_head(connection).startswith(b"HTTP/1.1 101 ")
        assert ended.wait(60)


def test_a_server_that_vanishes_ends_the_clients_side(daemon: RunningDaemon) -> None:
    def script(connection: socket.socket) -> None:
        accept_websocket(connection)

    with serving(script) as server:
        caller = Caller(daemon, server.port)
        with caller.connected() as connection:
            connection.sendall(caller.head("GET", "/", *UPGRADE))
            assert read_head(connection).startswith(b"HTTP/1.1 101 ")
            assert read_rest(connection) == b""


def test_what_a_client_sends_ahead_of_the_answer_is_bounded(daemon: RunningDaemon) -> None:
    may_accept = threading.Event()
    sent = bytearray()

    def script(connection: socket.socket) -> None:
        head = read_head(connection)
        assert may_accept.wait(60)
        assert b"upgrade: websocket" in head
        connection.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
        connection.sendall(hashlib.sha256(read_rest(connection)).digest())

    with serving(script) as server:
        caller = Caller(daemon, server.port)
        with caller.connected() as connection:
            connection.sendall(caller.head("GET", "/", *UPGRADE))
            connection.settimeout(0.5)
            with contextlib.suppress(TimeoutError):
                while len(sent) < 8_000_000:
                    sent += bytes(connection.send(bytes(100_000)))
            assert len(sent) < 4_000_000, "nobody has taken the connection over, and yet it was all read"
            connection.settimeout(60)
            may_accept.set()
            assert read_head(connection).startswith(b"HTTP/1.1 101 ")
            connection.shutdown(socket.SHUT_WR)
            assert read_rest(connection) == hashlib.sha256(sent).digest()


def tunnel_request(caller: Caller, *lines: str) -> bytes:
    return caller.head("GET", "", *lines).replace(b"/proxy/", b"/tunnel/")


def test_a_tunnel_carries_bytes_and_each_way_ends_on_its_own(daemon: RunningDaemon) -> None:
    data = os.urandom(5_000_000)

    def script(connection: socket.socket) -> None:
        got = read_rest(connection)
        connection.sendall(hashlib.sha256(got).digest())

    with serving(script) as server:
        caller = Caller(daemon, server.port)
        with caller.connected() as connection:
            connection.sendall(tunnel_request(caller, *TUNNEL) + data[:1000])
            assert read_head(connection).startswith(b"HTTP/1.1 101 ")
            connection.sendall(data[1000:])
            connection.shutdown(socket.SHUT_WR)
            assert read_rest(connection) == hashlib.sha256(data).digest()


@pytest.mark.parametrize("lines", [(), ("Connection: Upgrade", "Upgrade: websocket"), ("Upgrade: hearth-tunnel",)])
def test_a_tunnel_wants_its_own_protocol(daemon: RunningDaemon, lines: tuple[str, ...]) -> None:
    caller = Caller(daemon, 80)
    answer, body = caller.ask(tunnel_request(caller, *lines))
    assert (answer.status, json.loads(body)["code"]) == (400, "invalid")
    assert "hearth-tunnel" in json.loads(body)["resolution"]


def test_a_tunnel_to_nothing_is_502(daemon: RunningDaemon) -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        caller = Caller(daemon, reserved.getsockname()[1])
        answer, _ = caller.ask(tunnel_request(caller, *TUNNEL))
        assert answer.status == 502
