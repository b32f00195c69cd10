"""A WebSocket client for tests, by a library that shares nothing with the daemon but its frames."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any

from tests.server.daemon import RunningDaemon
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect, unix_connect

WAIT_S = 60.0


class Terminal:
    """One open socket. ``output`` is all that came in binary messages, ``told`` the text messages."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self.output = b""
        self.told: list[dict[str, Any]] = []

    def take(self) -> bool:
        """Take one message; False when the server has closed."""
        try:
            message = self.connection.recv(timeout=WAIT_S)
        except ConnectionClosed:
            return False
        if isinstance(message, bytes):
            self.output += message
        else:
            self.told.append(json.loads(message))
        return True

    def first(self) -> dict[str, Any]:
        """Take what comes first, and give it."""
        assert self.take()
        return self.told[0]

    def until(self, end: bytes) -> bytes:
        """Take output until it holds ``end``."""
        while end not in self.output:
            assert self.take(), (self.told, self.output)
        return self.output

    def say(self, **message: object) -> None:
        self.connection.send(json.dumps(message))

    def type(self, data: bytes) -> None:
        self.connection.send(data)

    def end(self) -> tuple[dict[str, Any], int | None]:
        """Take everything up to the end; give the last text message and the close code."""
        while self.take():
            continue
        return (self.told[-1] if self.told else {}), self.connection.close_code


@contextlib.contextmanager
def opened(
    daemon: RunningDaemon,
    target: str,
    *,
    token: str | None = "",
    address: tuple[str, int] | None = None,
    headers: dict[str, str] | None = None,
) -> Iterator[Terminal]:
    """Open ``/api/v1/sandboxes/{target}``, as the administrator unless a token is given; None brings none."""
    sent = dict(headers or {})
    if token is not None:
        sent["Authorization"] = f"Bearer {token or daemon.token}"
    path = f"/api/v1/sandboxes/{target}"
    if address is None:
        making = unix_connect(
            str(daemon.data.api_socket), f"ws://localhost{path}", additional_headers=sent, compression=None
        )
    else:
        making = connect(f"ws://{address[0]}:{address[1]}{path}", additional_headers=sent, proxy=None)
    with making as connection:
        yield Terminal(connection)


def refused(daemon: RunningDaemon, target: str, **options: Any) -> tuple[int, str]:
    """Open what must not be opened; give status and code of the answer."""
    try:
        with opened(daemon, target, **options):
            raise AssertionError("it was opened")
    except InvalidStatus as error:
        return error.response.status_code, json.loads(error.response.body or b"{}")["code"]
