"""PORTS_REQ against sockets of this very process."""

from __future__ import annotations

import os
import socket
import sys

import pytest
from tests.agent.client import Client

from hearth.wire.frames import FrameType
from hearth.wire.messages import PortInfo, decode_list

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="/proc/net/tcp is Linux's")


def listed(client: Client) -> dict[tuple[str, int], PortInfo]:
    with client.connect() as wire:
        wire.send(FrameType.PORTS_REQ)
        found = decode_list(PortInfo, wire.expect(FrameType.PORTS_RESP))
    assert found == sorted(found, key=lambda info: (info.port, info.address))
    return {(info.address, info.port): info for info in found}


def test_listening_sockets_are_listed_with_address_and_process(client: Client) -> None:
    with socket.socket() as four, socket.socket(socket.AF_INET6) as six, socket.socket() as silent:
        four.bind(("127.0.0.1", 0))
        six.bind(("::1", 0))
        silent.bind(("127.0.0.1", 0))
        four.listen()
        six.listen()
        found = listed(client)
        info = found["127.0.0.1", four.getsockname()[1]]
        assert ("::1", six.getsockname()[1]) in found
        assert ("127.0.0.1", silent.getsockname()[1]) not in found
    assert info.pid == os.getpid()
    assert info.process
    assert ("127.0.0.1", info.port) not in listed(client)
