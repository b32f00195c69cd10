"""Bodies of any size on their way in: never held, in bounded time, and never taken for whole when they are not."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator

from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope

from hearth.api.limits import MAX_FILE_BYTES
from hearth.api.operations import OPERATIONS
from hearth.errors import InvalidInput, LengthRequired, RequestTimeout, TooLarge

STALL_S = 60.0
"""How long a body may stand still, and how far it may fall behind the least rate."""
LEAST_RATE = 4096
"""Bytes a second that a body must bring on average."""
_PATHS = tuple(
    (operation.method, re.compile(re.sub(r"{\w+}", "[^/]+", operation.path)))
    for operation in OPERATIONS
    if operation.uploads
)


def is_upload(scope: Scope) -> bool:
    """Tell whether a request's body may be of any size.

    One that is signed must be read whole before it is believed, so that it must be short.
    """
    if not any(scope["method"] == method and path.fullmatch(scope["path"]) for method, path in _PATHS):
        return False
    given = [value for name, value in scope["headers"] if name == b"authorization"]
    return not any(value[:4].lower() == b"hmac" for value in given)


def announced_size(content_length: str | None) -> int:
    """Give how many bytes a body is said to have.

    Raises:
        LengthRequired: it is not said.
        InvalidInput, TooLarge: it is no number, or one of no file.
    """
    if content_length is None:
        raise LengthRequired(
            "the length is missing",
            details="the request has no Content-Length",
            resolution="say how many bytes come: a file is written as a whole or not at all",
            field="Content-Length",
        )
    if not content_length.isascii() or not content_length.isdigit():
        raise InvalidInput("invalid Content-Length", details=f"it is {content_length[:32]!r}", field="Content-Length")
    if int(content_length[:20]) > MAX_FILE_BYTES:
        raise TooLarge("the file is too large", details=f"{content_length[:32]} bytes", field="Content-Length")
    return int(content_length)


async def incoming(
    receive: Receive, *, stall_s: float = STALL_S, least_rate: float = LEAST_RATE
) -> AsyncIterator[bytes]:
    """Give a body's pieces as they come; only time spent waiting for the client counts.

    Raises:
        ClientDisconnect: the client left before its end.
        RequestTimeout: it stood still, or dripped.
    """
    loop = asyncio.get_running_loop()
    waited_s, received, more = 0.0, 0, True
    while more:
        began_s = loop.time()
        patience_s = min(stall_s, stall_s + received / least_rate - waited_s)
        try:
            async with asyncio.timeout(patience_s):
                message = await receive()
        except TimeoutError as error:
            raise RequestTimeout(
                "the body came too slowly",
                details=f"it stood still or dripped for {stall_s:g} s after {received} bytes",
                resolution="send it again, without a pause",
                field="body",
            ) from error
        waited_s += loop.time() - began_s
        if message["type"] != "http.request":
            raise ClientDisconnect
        more = message.get("more_body", False)
        if piece := message.get("body", b""):
            received += len(piece)
            yield piece
