"""One call of the API as a value: a request, and how its answer is read; no I/O. ``calls`` makes them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar
from urllib.parse import quote, urlencode

import msgspec

from hearth.api.limits import JSON, MAX_BODY_BYTES
from hearth.api.operation import Operation
from hearth.api.problems import error_from
from hearth.api.refusals import refusal
from hearth.api.schemas import Problem
from hearth.errors import HearthError, InvalidInput, TooLarge, Unavailable
from hearth.sdk.http1 import HttpRequest, HttpResponse

Input = TypeVar("Input")
Output = TypeVar("Output")
Item_co = TypeVar("Item_co", covariant=True)

QUICK_S = 30.0
LONG_S = 600.0
"""What boots, wakes, writes or removes machines may take so long on a busy host."""


@dataclass(frozen=True, kw_only=True)
class Call(Generic[Output]):
    """A request and how its answer is to be read."""

    request: HttpRequest
    gives: type[Output]

    def read(self, response: HttpResponse) -> Output:
        """Give the value of an answer.

        Raises:
            HearthError: the daemon's problem, as the class its code names.
            Unavailable: what answered is no hearth daemon.
        """
        if not 200 <= response.status < 300:
            raise read_problem(response)
        try:
            return msgspec.json.decode(response.body or b"{}", type=self.gives)
        except msgspec.DecodeError as error:
            raise _stranger(response.status) from error


class Page(Protocol[Item_co]):
    """A slice of any list; ``next_cursor`` is None on the last one."""

    @property
    def items(self) -> Sequence[Item_co]: ...

    @property
    def next_cursor(self) -> str | None: ...


def read_problem(response: HttpResponse) -> HearthError:
    """Give the error that an answer of status 400 or more stands for."""
    try:
        return error_from(msgspec.json.decode(response.body, type=Problem))
    except msgspec.DecodeError:
        return _stranger(response.status)


def call_of(
    operation: Operation[Input, Output],
    given: Input,
    *,
    ref: str | None = None,
    what: str = "sandbox",
    volume: str | None = None,
    timeout_s: float = QUICK_S,
    accept: str = JSON,
    said: Mapping[str, object] | None = None,
) -> Call[Output]:
    """Make the call of an operation.

    Args:
        ref: the id or name in its path, where there is one.
        what: what that names.
        volume: the volume in its path, after that.
        said: members to send although they are as they would be without: they may replace what is kept elsewhere.

    Raises:
        InvalidInput: ``ref`` cannot be one, or something that has to be text is none.
        TooLarge: the body is more than the contract allows.
    """
    target = operation.path
    if ref is not None:
        target = target.replace("{ref}", quote(check_ref(ref, what), safe=""))
    if volume is not None:
        target = target.replace("{volume}", quote(check_ref(volume, "volume"), safe=""))
    body = b""
    if operation.has_body:
        body = _encoded({**said, **msgspec.to_builtins(given)} if said else given)
        if len(body) > MAX_BODY_BYTES:
            raise TooLarge(
                "the request is too large",
                details=f"it takes {len(body)} bytes, at most {MAX_BODY_BYTES} are possible",
                resolution="send less input, or in parts",
            )
    elif query := urlencode(_plain(given), doseq=True, errors="surrogateescape"):
        target += f"?{query}"
    request = HttpRequest(
        method=operation.method,
        target=target,
        timeout_s=timeout_s,
        accept=accept,
        body=body,
        idempotency_key=os.urandom(16).hex() if operation.creates and not operation.streams else "",
    )
    return Call(request=request, gives=operation.gives)


def _encoded(value: object) -> bytes:
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError as error:
        raise InvalidInput(
            "what was given is no text",
            details=f"it holds a character that cannot be sent: {error.object[error.start : error.end]!a}",
            resolution="write it in UTF-8",
        ) from error


def _plain(given: object) -> dict[str, Any]:
    values: dict[str, Any] = msgspec.to_builtins(given)
    words = {True: "true", False: "false"}
    return {
        name: words[value] if isinstance(value, bool) else value for name, value in values.items() if value is not None
    }


def check_ref(ref: str, what: str) -> str:
    """Give what may stand as one part of a path. Raises InvalidInput, naming it by ``what``."""
    if not ref or ref in (".", "..") or not _is_text(ref):
        raise InvalidInput(
            f"invalid {what}",
            details=f"{ref!r} is neither an id nor a name",
            resolution=f"name the {what} by id or name",
            field=what,
        )
    return ref


def _is_text(value: str) -> bool:
    """Tell whether it is text; a command line's words that are no UTF-8 hold lone surrogates."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def checked(schema: type[Input], values: dict[str, Any]) -> Input:
    """Check arguments against the contract before anything travels.

    Raises:
        InvalidInput: names the argument.
    """
    try:
        return msgspec.convert(values, schema)
    except msgspec.ValidationError as error:
        raise refusal(str(error), values, whole="arguments") from error


def _stranger(status: int) -> Unavailable:
    return Unavailable(
        "what answered is not a hearth daemon",
        details=f"status {status} with a body that is not hearth's",
        resolution="check HEARTH_URL",
    )
