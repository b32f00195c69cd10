"""``Idempotency-Key`` of requests that create: a repetition gets the answer of the first and creates nothing."""

from __future__ import annotations

import asyncio
import hashlib
import re

from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hearth.api.limits import IDEMPOTENCY_HEADER, JSON, NDJSON, REPLAYED_HEADER
from hearth.control.daemon import Daemon
from hearth.control.idempotency import Asked, Outcome
from hearth.errors import InvalidInput

_NAME = IDEMPOTENCY_HEADER.lower().encode()
_KEY = re.compile(rb"[\x21-\x7e]{1,255}")


class Idempotent:
    """Wraps an operation that creates; stands inside authentication, since keys are each user's own."""

    def __init__(self, app: ASGIApp, *, daemon: Daemon) -> None:
        self.app = app
        self.daemon = daemon

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        key = read_key(scope)
        if key is None:
            await self.app(scope, receive, send)
            return
        if any(name == b"accept" and NDJSON.encode() in value for name, value in scope["headers"]):
            raise InvalidInput(
                f"invalid {IDEMPOTENCY_HEADER}",
                details="it comes with a request for a stream, which cannot be given again",
                resolution=f"leave the header out, or 'Accept: {NDJSON}'",
                field=IDEMPOTENCY_HEADER,
            )
        body = await _whole(receive)
        digest = hashlib.sha256(b"\0".join([scope["method"].encode(), scope["raw_path"], scope["query_string"], body]))
        asked = Asked(user_id=str(scope["state"]["user"].id), key=key, digest=digest.hexdigest())

        async def work(seed: str) -> Outcome:
            scope["state"]["seed"] = seed
            return await self._collect(scope, body)

        outcome, repeated = await self.daemon.idempotency.once(asked, work)
        headers = {REPLAYED_HEADER: "true"} if repeated else None
        await Response(outcome.body, outcome.status, headers, JSON)(scope, receive, send)

    async def _collect(self, scope: Scope, body: bytes) -> Outcome:
        """Have the request done and give its answer; it is done to its end, whether or not the caller stays."""
        status, parts, given = 500, list[bytes](), False

        async def receive_again() -> Message:
            nonlocal given
            if given:
                await asyncio.get_running_loop().create_future()  # nobody leaves: what was begun is done
            given = True
            return {"type": "http.request", "body": body, "more_body": False}

        async def take(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            else:
                parts.append(message.get("body", b""))

        await self.app(scope, receive_again, take)
        return Outcome(status=status, body=b"".join(parts))


def read_key(scope: Scope) -> str | None:
    """Give the request's key, None where it brings none.

    Raises:
        InvalidInput: it is given twice, or is not 1 to 255 visible ASCII characters.
    """
    given: list[bytes] = [value for name, value in scope["headers"] if name == _NAME]
    if not given:
        return None
    if len(given) > 1 or not _KEY.fullmatch(given[0]):
        raise InvalidInput(
            f"invalid {IDEMPOTENCY_HEADER}",
            details="it is given twice" if len(given) > 1 else f"it is {given[0][:80]!r}",
            resolution="give one of 1 to 255 visible ASCII characters, such as a fresh UUID",
            field=IDEMPOTENCY_HEADER,
        )
    return given[0].decode("ascii")


async def _whole(receive: Receive) -> bytes:
    parts: list[bytes] = []
    while (message := await receive())["type"] == "http.request":
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(parts)
    raise ClientDisconnect
