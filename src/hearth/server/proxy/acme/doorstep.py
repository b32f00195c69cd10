"""Port 80 of a zone: answers for the certificate authority (HTTP-01, RFC 8555, section 8.3), and the way to https."""

from __future__ import annotations

import re
from pathlib import Path

from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import Receive, Scope, Send

from hearth.control.publishing import PublicAddress
from hearth.server.proxy.hosts import label_of

_CHALLENGE = re.compile(rb"/\.well-known/acme-challenge/([A-Za-z0-9_-]{1,128})")
SEEN_BY = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
PERMANENT = 308
"""Method and body stay as they are."""


class Doorstep:
    """ASGI app; ``challenges`` is where the child puts its answers, None where there are none."""

    def __init__(self, address: PublicAddress, challenges: Path | None) -> None:
        self._address = address
        self._challenges = challenges

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = self._answer(scope)
        answer.headers["connection"] = "close"  # a body that may follow is not read
        await answer(scope, receive, send)

    def _answer(self, scope: Scope) -> Response:
        asked = _CHALLENGE.fullmatch(scope["raw_path"])
        if asked is not None and self._challenges is not None:
            # Not on a thread: it takes 20 µs, and threads are what a flood of such requests would use up.
            proof = _read(self._challenges / asked[1].decode("ascii"))
            if proof is not None:
                return Response(proof, media_type="application/octet-stream", headers=SEEN_BY)
        label = label_of(scope["headers"], self._address.zone)
        if label is None:
            return PlainTextResponse("nothing is published here\n", status_code=404, headers=SEEN_BY)
        query = b"?" + scope["query_string"] if scope["query_string"] else b""
        base = self._address.url(label).rstrip("/")
        return RedirectResponse(base + (scope["raw_path"] + query).decode("latin-1"), status_code=PERMANENT)


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None
