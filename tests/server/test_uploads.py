"""Bodies of any size on their way in: how slow a client may be, and which requests are spared the usual limit."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive

from hearth.errors import InvalidInput, LengthRequired, RangeNotSatisfiable, RequestTimeout, TooLarge
from hearth.server.ranges import ByteRange, read_range
from hearth.server.uploads import announced_size, incoming, is_upload

PATH = "/api/v1/sandboxes/dev/files"


def body(*pieces: bytes, pause_s: float = 0.0, end: Message | None = None) -> Receive:
    """Give what a server gives for a request that brings these pieces, and then ``end``, or nothing any more."""
    messages: list[Message] = [{"type": "http.request", "body": piece, "more_body": True} for piece in pieces]
    messages += [end] if end is not None else []

    async def receive() -> Message:
        await asyncio.sleep(pause_s)
        if not messages:
            await asyncio.Event().wait()
        return messages.pop(0)

    return receive


async def whole(receive: Receive, **limits: float) -> Sequence[bytes]:
    return [piece async for piece in incoming(receive, **limits)]


async def test_pieces_are_given_as_they_come() -> None:
    last: Message = {"type": "http.request", "body": b"c", "more_body": False}
    assert await whole(body(b"a", b"", b"b", end=last)) == [b"a", b"b", b"c"]


async def test_a_client_that_leaves_is_no_end_of_the_body() -> None:
    with pytest.raises(ClientDisconnect):
        await whole(body(b"a", end={"type": "http.disconnect"}))


async def test_a_body_that_stands_still_is_refused() -> None:
    with pytest.raises(RequestTimeout, match="stood still or dripped"):
        await whole(body(b"a"), stall_s=0.05)


async def test_a_body_that_drips_is_refused_however_often_a_drop_comes() -> None:
    with pytest.raises(RequestTimeout):
        await whole(body(*[b"x"] * 1000, pause_s=0.01), stall_s=0.2, least_rate=10_000)


async def test_the_time_that_the_sandbox_takes_is_not_the_clients() -> None:
    received = []
    last: Message = {"type": "http.request", "body": b"end", "more_body": False}
    async for piece in incoming(body(b"a", b"b", end=last), stall_s=0.5):
        await asyncio.sleep(0.4)
        received.append(piece)
    assert received == [b"a", b"b", b"end"]


@pytest.mark.parametrize(
    ("method", "path", "authorization", "spared"),
    [
        ("PUT", PATH, b"Bearer x", True),
        ("PUT", PATH, b"", True),
        ("PUT", PATH, b"HMAC a:b", False),
        ("PUT", PATH, b"hmac a:b", False),
        ("PUT", f"{PATH}/", b"Bearer x", False),
        ("PUT", f"/x{PATH}", b"Bearer x", False),
        ("POST", PATH, b"Bearer x", False),
        ("PUT", "/api/v1/sandboxes", b"Bearer x", False),
        ("PUT", "/api/v1/sandboxes/a/b/files", b"Bearer x", False),
    ],
)
def test_what_is_no_upload_keeps_the_usual_limit(method: str, path: str, authorization: bytes, spared: bool) -> None:
    scope: dict[str, Any] = {"method": method, "path": path, "headers": [(b"authorization", authorization)]}
    assert is_upload(scope) is spared


def test_a_length_is_a_number_that_a_file_can_have() -> None:
    assert announced_size("0") == 0
    with pytest.raises(LengthRequired):
        announced_size(None)
    for text in ("-1", "1e3", "٣", ""):
        with pytest.raises(InvalidInput):
            announced_size(text)
    for text in ("9" * 19, "9" * 100):
        with pytest.raises(TooLarge):
            announced_size(text)


def test_of_an_empty_file_no_range_can_be_had() -> None:
    for asked in (ByteRange(start=0, end=None), ByteRange(start=0, end=0), ByteRange(start=None, end=5)):
        with pytest.raises(RangeNotSatisfiable):
            asked.within(0)
    assert read_range("bytes=" + "9" * 18 + "-") == ByteRange(start=10**18 - 1, end=None)
    assert read_range("bytes=" + "9" * 19 + "-") is None
    assert read_range("bytes=-") is None
