"""A reader of server-sent events for tests, by the standard library alone."""

from __future__ import annotations

import contextlib
import http.client
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tests.server.daemon import RunningDaemon
from tests.server.test_app import UnixConnection

WAIT_S = 60.0


@dataclass(frozen=True, kw_only=True)
class Told:
    """One event as it came."""

    id: str | None
    kind: str
    data: dict[str, Any]


class Following:
    """An open stream."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.response = response

    def __iter__(self) -> Iterator[Told]:
        """Give events until the stream ends; no line for WAIT_S is an error."""
        fields: dict[str, str] = {}
        while line := self.response.readline():
            name, _, value = line.decode().rstrip("\n").partition(": ")
            if name:
                fields[name] = value
            elif "event" in fields:
                yield Told(id=fields.get("id"), kind=fields["event"], data=json.loads(fields["data"]))
                fields = {}

    def until(self, kind: str, **expected: object) -> list[Told]:
        """Give what came up to and with the first event of a kind with these members."""
        seen: list[Told] = []
        for told in self:
            seen.append(told)
            if told.kind == kind and expected.items() <= told.data.items():
                return seen
        raise AssertionError(f"the stream ended without {kind} {expected}: {[each.kind for each in seen]}")


@contextlib.contextmanager
def following(
    daemon: RunningDaemon, path: str = "/api/v1/events", *, token: str | None = None, last: str | None = None
) -> Iterator[Following]:
    """Open a stream; it has begun when this is entered."""
    connection = UnixConnection(str(daemon.data.api_socket))
    connection.timeout = WAIT_S
    headers = {"Authorization": f"Bearer {token or daemon.token}"}
    if last is not None:
        headers["Last-Event-ID"] = last
    try:
        connection.request("GET", path, headers=headers)
        connection.sock.settimeout(WAIT_S)
        response = connection.getresponse()
        assert response.status == 200, response.read()
        assert response.getheader("content-type") == "text/event-stream"
        assert response.readline() == b"retry: 2000\n"
        yield Following(response)
    finally:
        connection.close()
