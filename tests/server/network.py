"""Requests over TCP, with and without TLS, by the standard library: nothing of the SDK stands in between."""

from __future__ import annotations

import hashlib
import hmac
import http.client
import json
import ssl
import time
from collections.abc import Mapping
from typing import Any

from tests.server.daemon import RunningDaemon

TIMEOUT_S = 60.0


def address_of(daemon: RunningDaemon) -> tuple[str, int]:
    """Tell where a daemon listens on the network."""
    entry = next(each for each in reversed(daemon.log()) if each["event"] == "listening")
    host, port = entry["addresses"][0].partition("://")[2].rsplit(":", 1)
    return host, int(port)


def ask_over_tcp(
    address: tuple[str, int],
    method: str,
    target: str,
    body: bytes | None = None,
    *,
    headers: Mapping[str, str] | None = None,
    context: ssl.SSLContext | None = None,
    source: str | None = None,
) -> tuple[int, dict[str, str], Any]:
    """Send one request, from ``source`` if given; give status, headers (names in lower case) and the answer's JSON."""
    connection: http.client.HTTPConnection
    if context is None:
        origin = None if source is None else (source, 0)
        connection = http.client.HTTPConnection(*address, timeout=TIMEOUT_S, source_address=origin)
    else:
        connection = http.client.HTTPSConnection(*address, timeout=TIMEOUT_S, context=context)
    try:
        connection.request(method, target, body, dict(headers or {}))
        answer = connection.getresponse()
        content = answer.read()
        fields = {name.lower(): value for name, value in answer.getheaders()}
        return answer.status, fields, json.loads(content) if content else None
    finally:
        connection.close()


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def signed(
    key_id: str, secret: str, method: str, target: str, body: bytes = b"", *, at: float | None = None
) -> dict[str, str]:
    """Give the headers of a signed request, as docs/users.md says."""
    timestamp = str(int(time.time() if at is None else at))
    text = f"{method}\n{target}\n{timestamp}\n{hashlib.sha256(body).hexdigest()}"
    signature = hmac.new(secret.encode(), text.encode(), "sha256").hexdigest()
    return {"Authorization": f"HMAC {key_id}:{signature}", "X-Timestamp": timestamp}
