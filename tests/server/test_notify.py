"""The service manager is told over the socket it named."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from hearth.server.notify import notify


@pytest.mark.parametrize("kind", ["path", "abstract"])
def test_the_state_arrives(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = str(tmp_path / "n.sock") if kind == "path" else f"@hearth-test-{tmp_path}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(name.replace("@", "\0", 1))
        manager.settimeout(60)
        monkeypatch.setenv("NOTIFY_SOCKET", name)
        notify("READY=1")
        assert manager.recv(64) == b"READY=1"


@pytest.mark.parametrize("address", ["", "/nonexistent/n.sock"])
def test_nobody_to_tell_is_no_failure(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    notify("READY=1")
