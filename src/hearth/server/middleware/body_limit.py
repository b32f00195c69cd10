"""Refuses bodies beyond the contract's limit, by what they announce and by what they turn out to be."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hearth.errors import InvalidInput, RequestTimeout, TooLarge

BODY_S = 60.0
"""How long a client may take for a body of the contract's size."""


class BodyLimit:
    """Raises TooLarge at once for an announced length, else as soon as the bytes received pass the limit.

    Args:
        body_s: seconds from the first look at the body until it must be there, however it trickles.
        spares: tells of requests whose bodies are bounded elsewhere.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        max_bytes: int,
        body_s: float = BODY_S,
        spares: Callable[[Scope], bool] = lambda _: False,
    ) -> None:
        self.app = app
        self.max_bytes = max_bytes
        self.body_s = body_s
        self.spares = spares

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.spares(scope):
            await self.app(scope, receive, send)
            return
        announced = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        if not announced.isdigit():
            raise InvalidInput("invalid Content-Length", details=f"it is {announced[:32]!r}", field="Content-Length")
        if int(announced[:20]) > self.max_bytes:
            raise self._too_large()
        received, is_whole = 0, False
        ends_s: float | None = None

        async def receive_counted() -> Message:
            nonlocal received, is_whole, ends_s
            if is_whole:  # what comes next is that the client leaves, whenever that is
                return await receive()
            now_s = asyncio.get_running_loop().time()
            ends_s = now_s + self.body_s if ends_s is None else ends_s
            try:
                async with asyncio.timeout_at(ends_s):
                    message = await receive()
            except TimeoutError as error:
                raise self._too_slow() from error
            is_whole = not message.get("more_body", False)
            received += len(message.get("body", b""))
            if received > self.max_bytes:
                raise self._too_large()
            return message

        await self.app(scope, receive_counted, send)

    def _too_slow(self) -> RequestTimeout:
        return RequestTimeout(
            "the body came too slowly",
            details=f"it was not there after {self.body_s:g} s",
            resolution="send it again, without a pause",
            field="body",
        )

    def _too_large(self) -> TooLarge:
        return TooLarge(
            "the body is too large",
            details=f"a body may hold {self.max_bytes} bytes",
            resolution="send less, or in parts",
            field="body",
        )
