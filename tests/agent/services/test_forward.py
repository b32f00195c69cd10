"""The forward port against real listeners on loopback."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from tests.agent.client import AgentError, Client, Wire

from hearth.wire.frames import FrameType
from hearth.wire.messages import ForwardRequest, Status, decode


@contextmanager
def listener(serve: Callable[[socket.socket], None], family: int = socket.AF_INET) -> Iterator[int]:
    """Serve every connection to a free loopback port in a thread; gives the port."""
    server = socket.socket(family)
    server.bind(("::1" if family == socket.AF_INET6 else "127.0.0.1", 0))
    server.listen(64)
    threads: list[threading.Thread] = []

    def accept() -> None:
        while True:
            try:
                peer, _ = server.accept()
            except OSError:
                return
            threads.append(threading.Thread(target=run, args=(peer,)))
            threads[-1].start()

    def run(peer: socket.socket) -> None:
        with peer:
            serve(peer)

    acceptor = threading.Thread(target=accept)
    acceptor.start()
    try:
        yield server.getsockname()[1]
    finally:
        server.shutdown(socket.SHUT_RDWR)
        server.close()
        for thread in [acceptor, *threads]:
            thread.join(60)
            assert not thread.is_alive()


def echo(peer: socket.socket) -> None:
    while data := peer.recv(1 << 16):
        peer.sendall(data)


def forward(client: Client, port: int, early: bytes = b"") -> Wire:
    wire = Wire(client.forward_address, client.token)
    wire.request(FrameType.FWD_REQ, ForwardRequest(port=port))
    if early:
        wire.socket.sendall(early)
    reply = decode(Status, wire.expect(FrameType.FWD_RESP))
    if reply.status != "ok":
        wire.close()
        raise AgentError(reply.message)
    return wire


def send_all(wire: Wire, data: bytes) -> None:
    wire.socket.sendall(data)
    wire.half_close()


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6], ids=["ipv4", "ipv6"])
def test_bytes_pass_both_ways_and_half_close_is_carried(client: Client, family: int) -> None:
    data = os.urandom(2_000_000)
    with listener(echo, family) as port, forward(client, port, early=data[:1000]) as wire:
        sender = threading.Thread(target=send_all, args=(wire, data[1000:]))
        sender.start()
        assert wire.raw_rest() == data
        sender.join()


def test_the_listeners_half_close_leaves_the_other_way_open(client: Client) -> None:
    got: list[bytes] = []

    def serve(peer: socket.socket) -> None:
        peer.sendall(b"bye")
        peer.shutdown(socket.SHUT_WR)
        while data := peer.recv(100):
            got.append(data)

    with listener(serve) as port, forward(client, port) as wire:
        assert wire.raw_rest() == b"bye"
        wire.socket.sendall(b"still here")
        wire.half_close()
    assert b"".join(got) == b"still here"


def test_a_client_that_goes_away_closes_the_listeners_side(client: Client) -> None:
    ended = threading.Event()

    def serve(peer: socket.socket) -> None:
        assert peer.recv(1) == b"x"
        assert peer.recv(1) == b""
        ended.set()

    with listener(serve) as port:
        with forward(client, port) as wire:
            wire.socket.sendall(b"x")
        assert ended.wait(60)


def test_a_port_without_listener_is_an_error_status(client: Client) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(AgentError, match=r"Connection refused"):
            forward(client, unused.getsockname()[1])


def test_many_forwards_run_at_once(client: Client) -> None:
    with listener(echo) as port:
        wires = [forward(client, port) for _ in range(100)]
        for number, wire in enumerate(wires):
            wire.socket.sendall(b"%04d" % number)
        for number, wire in enumerate(wires):
            wire.half_close()
            assert wire.raw_rest() == b"%04d" % number
            wire.close()


def test_each_port_answers_its_own_requests_only(client: Client) -> None:
    with client.connect() as wire, pytest.raises(AgentError, match=r"^unexpected frame type 0x20$"):
        wire.request(FrameType.FWD_REQ, ForwardRequest(port=1))
        wire.read()
    with Wire(client.forward_address) as wire, pytest.raises(AgentError, match=r"^unexpected frame type 0x30$"):
        wire.send(FrameType.EXEC_LIST_REQ)
        wire.read()
