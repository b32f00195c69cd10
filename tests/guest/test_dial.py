from __future__ import annotations

import socket
from pathlib import Path

import pytest

from hearth.guest.dial import CONTROL_PORT, FORWARD_PORT, UnixDialer


async def test_each_port_has_its_socket_and_connections_do_not_block(tmp_path: Path) -> None:
    paths = {CONTROL_PORT: tmp_path / "c", FORWARD_PORT: tmp_path / "f"}
    dialer = UnixDialer(control=paths[CONTROL_PORT], forward=paths[FORWARD_PORT])
    for port, path in paths.items():
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
            listener.listen(1)
            with await dialer.connect(port) as connected:
                assert connected.getpeername() == str(path)
                assert not connected.getblocking()


async def test_a_socket_that_is_not_there_is_an_os_error(tmp_path: Path) -> None:
    dialer = UnixDialer(control=tmp_path / "c", forward=tmp_path / "f")
    for port in (CONTROL_PORT, FORWARD_PORT):
        with pytest.raises(FileNotFoundError):
            await dialer.connect(port)


async def test_a_socket_nobody_listens_on_is_an_os_error(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(tmp_path / "c"))
        with pytest.raises(ConnectionRefusedError):
            await UnixDialer(control=tmp_path / "c", forward=tmp_path / "f").connect(CONTROL_PORT)
