"""Binds operations to handlers: one ASGI app a path that reads the input, calls the handler and writes its answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from hearth.api.limits import JSON
from hearth.api.operation import Operation
from hearth.api.schemas import Nothing
from hearth.control.daemon import Daemon
from hearth.control.users import Caller
from hearth.errors import MethodNotAllowed
from hearth.model import User
from hearth.server.inputs import check_content_type, read_body, read_query
from hearth.server.names import name_from
from hearth.server.subjects import things_in

Input = TypeVar("Input")
Output = TypeVar("Output")


class WrongMethod(MethodNotAllowed):
    """The path is there, the method is not; ``allowed`` names those that are."""

    def __init__(self, method: str, allowed: Iterable[str]) -> None:
        self.allowed = sorted(allowed)
        super().__init__("method not allowed", details=f"{method} here", resolution=f"use {', '.join(self.allowed)}")


@dataclass(frozen=True, kw_only=True)
class Call(Generic[Input]):
    """One request as its handler sees it: who asks, for what, with which input."""

    daemon: Daemon
    input: Input
    request: Request

    @property
    def user(self) -> User:
        """Who asks; only operations that are not public have one."""
        user: User = self.request.state.user
        return user

    @property
    def caller(self) -> Caller:
        """Who asks, and with which key."""
        caller: Caller = self.request.state.caller
        return caller

    @property
    def ref(self) -> str:
        """The id or name in the path."""
        ref: str = self.request.path_params["ref"]
        return ref

    @property
    def chosen_name(self) -> str | None:
        """The name for what is made without one, where an Idempotency-Key says that it may have been made before."""
        seed: str | None = getattr(self.request.state, "seed", None)
        return None if seed is None else name_from(seed)

    @property
    def request_id(self) -> str:
        request_id: str = self.request.state.request_id
        return request_id


@dataclass(frozen=True, kw_only=True)
class Reply(Generic[Output]):
    """An answer with a status other than the operation's usual one."""

    value: Output
    status: int


Handler = Callable[[Call[Input]], Awaitable[Output | Reply[Output] | ASGIApp]]


@dataclass(frozen=True, kw_only=True)
class Bound:
    """An operation and the handler that serves it."""

    operation: Operation[Any, Any]
    handler: Callable[[Call[Any]], Awaitable[Any]]


def bind(operation: Operation[Input, Output], handler: Handler[Input, Output]) -> Bound:
    """Bind a handler to the operation whose input it takes and whose output it gives; types tell when it does not."""
    return Bound(operation=operation, handler=handler)


class Endpoint:
    """ASGI app of one operation."""

    def __init__(self, bound: Bound, daemon: Daemon) -> None:
        self.operation = bound.operation
        self.handler = bound.handler
        self.daemon = daemon

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive, send)
        result = await self.handler(Call(daemon=self.daemon, input=await self._input(request), request=request))
        # Of a GET nothing is made: a list of a thousand would take 14 ms to look through.
        if self.operation.changes and (made := things_in(result.value if isinstance(result, Reply) else result)):
            scope["state"]["made"] = made
        response = result if callable(result) else self._response(result)
        await response(scope, receive, send)

    async def _input(self, request: Request) -> Any:
        if not self.operation.has_body:
            return read_query(self.operation.takes, request.scope["query_string"])
        body = await request.body()
        if not body and not self.operation.needs_body:
            body = b"{}"
        else:
            check_content_type(request.headers.get("content-type"))
        return read_body(self.operation.takes, body)

    def _response(self, result: Any) -> Response:
        status = self.operation.statuses[0]
        if isinstance(result, Reply):
            result, status = result.value, result.status
        if isinstance(result, Nothing):
            return Response(status_code=status)
        return Response(msgspec.json.encode(result), status_code=status, media_type=JSON)


class Resource:
    """ASGI app of one path: chooses by method; HEAD is answered as GET is, without the body."""

    def __init__(self, endpoints: Mapping[str, ASGIApp]) -> None:
        self.endpoints = dict(endpoints)
        if "GET" in self.endpoints:
            self.endpoints.setdefault("HEAD", self.endpoints["GET"])

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        endpoint = self.endpoints.get(scope["method"])
        if endpoint is None:
            raise WrongMethod(scope["method"], self.endpoints)
        await endpoint(scope, receive, send)
