"""Listening sockets: private, never stolen from the living, and closed to the network unless it was meant."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest

from hearth.errors import Conflict, InvalidInput, Unavailable
from hearth.server.listen import parse_address, spoken_address, tcp_listener, unix_listener


def connects(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        try:
            client.connect(str(path))
        except OSError:
            return False
        return True


def test_the_socket_is_private_answers_and_goes_with_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "h.sock"
    with unix_listener(path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert connects(path)
        assert list(tmp_path.iterdir()) == [path]
    assert list(tmp_path.iterdir()) == []


def test_a_dead_daemons_socket_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "h.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as dead:
        dead.bind(str(path))
    assert path.exists()
    with unix_listener(path):
        assert connects(path)


def test_a_living_daemons_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "h.sock"
    with unix_listener(path):
        inode = path.stat().st_ino
        with pytest.raises(Conflict), unix_listener(path):
            pass
        assert path.stat().st_ino == inode
        assert connects(path)


def test_a_successors_socket_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "h.sock"
    with unix_listener(path):
        path.unlink()
        path.write_text("a successor's")
    assert path.read_text() == "a successor's"


def test_the_umask_is_as_it_was(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        with unix_listener(tmp_path / "h.sock"):
            assert os.umask(0o022) == 0o022
    finally:
        os.umask(before)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:8080", ("127.0.0.1", 8080)),
        ("127.8.9.1:0", ("127.8.9.1", 0)),
        ("localhost:80", ("127.0.0.1", 80)),
        ("[::1]:8080", ("::1", 8080)),
    ],
)
def test_loopback_is_taken(text: str, address: tuple[str, int]) -> None:
    assert parse_address(text, allow_remote=False) == address


@pytest.mark.parametrize("text", ["0.0.0.0:8080", "[::]:80", "192.0.2.7:80", "[::ffff:192.0.2.7]:80"])
def test_the_network_is_refused_unless_it_was_meant(text: str) -> None:
    with pytest.raises(InvalidInput, match="--allow-remote"):
        parse_address(text, allow_remote=False)
    assert parse_address(text, allow_remote=True)[1] in (80, 8080)


@pytest.mark.parametrize(
    "text", ["", "8080", ":8080", "127.0.0.1", "127.0.0.1:", "127.0.0.1:x", "1.1.1.1:65536", "h:80", "[127.0.0.1]:80"]
)
def test_what_is_no_address_is_refused_naming_the_option(text: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse_address(text, allow_remote=True)
    assert refused.value.field == "listen"


@pytest.mark.parametrize("text", ["::1:80", "::1", "::", "fe80::1:8080", "[::1:80", "::1]:80"])
def test_an_ipv6_address_without_brackets_could_mean_two_things_and_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match=r"\[::1\]:8080") as refused:
        parse_address(text, allow_remote=True)
    assert refused.value.field == "listen"


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_tcp_listener_says_where_it_is(host: str) -> None:
    with tcp_listener(host, 0) as listener:
        port = listener.getsockname()[1]
        assert spoken_address(listener) == (f"http://[::1]:{port}" if ":" in host else f"http://127.0.0.1:{port}")


def test_a_taken_address_is_said() -> None:
    with tcp_listener("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(Unavailable, match=f"127.0.0.1:{port}"), tcp_listener("127.0.0.1", port):
            pass
