"""Refuses bodies beyond the contract's limit, by what they announce and by what they turn out to be."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hearth.errors import InvalidInput, TooLarge


class BodyLimit:
    """Raises TooLarge at once for an announced length, else as soon as the bytes received pass the limit."""

    def __init__(self, app: ASGIApp, *, max_bytes: int) -> None:
        self.app = app
        self.max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        announced = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        if not announced.isdigit():
            raise InvalidInput("invalid Content-Length", details=f"it is {announced[:32]!r}", field="Content-Length")
        if int(announced[:20]) > self.max_bytes:
            raise self._too_large()
        received = 0

        async def receive_counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self.max_bytes:
                raise self._too_large()
            return message

        await self.app(scope, receive_counted, send)

    def _too_large(self) -> TooLarge:
        return TooLarge(
            "the body is too large",
            details=f"a body may hold {self.max_bytes} bytes",
            resolution="send less, or in parts",
            field="body",
        )
