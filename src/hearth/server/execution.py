"""A command on behalf of a request: its stdin fed, its time limited, its process group gone when the request ends."""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
from collections.abc import AsyncIterator

from hearth.api.schemas import ExecCommand
from hearth.errors import GuestFailed, InvalidInput, TimedOut
from hearth.guest.execution import Execution
from hearth.server.resource import Call
from hearth.server.routes.secrets import secret_variables
from hearth.wire.messages import ExecRequest

STDIN_CHUNK_BYTES = 65_536


def stdin_of(command: ExecCommand) -> bytes:
    """Give the bytes to feed.

    Raises:
        InvalidInput: ``stdin`` is said to be base64 and is not.
    """
    text = command.stdin or ""
    if command.stdin_encoding == "utf-8":
        return text.encode()
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidInput(
            "invalid stdin",
            details=f"stdin: not base64: {error}",
            resolution="send base64 with padding, or text without stdin_encoding",
            field="stdin",
        ) from error


@contextlib.asynccontextmanager
async def running(call: Call[ExecCommand], stdin: bytes) -> AsyncIterator[Execution]:
    """Start the command; leaving the context early kills its process group.

    Raises:
        TimedOut: it ran longer than ``timeout_sec``; the group is killed.
        HearthError: what ``Sandboxes.execute`` raises.
    """
    command = call.input
    env = {**command.env, **await secret_variables(call)}
    request = ExecRequest(argv=list(command.cmd), env=env, cwd=command.cwd, user=command.user, timeout_sec=None)
    try:
        async with (
            asyncio.timeout(command.timeout_sec),
            call.daemon.sandboxes.execute(call.user, call.ref, request) as execution,
            _fed(execution, stdin),
        ):
            yield execution
    except TimeoutError as error:
        raise TimedOut(
            "the command took too long",
            details=f"it was killed after {command.timeout_sec:g} s",
            resolution="raise timeout_sec (at most 86400), or make the command faster",
            field="timeout_sec",
        ) from error


@contextlib.asynccontextmanager
async def _fed(execution: Execution, stdin: bytes) -> AsyncIterator[None]:
    """Feed stdin and its end beside the reading of output, as long as the context lasts."""
    feeding = asyncio.create_task(_feed(execution, stdin), name="exec stdin")
    try:
        yield
    finally:
        feeding.cancel()
        await asyncio.wait((feeding,))
        if not feeding.cancelled():
            feeding.result()


async def _feed(execution: Execution, stdin: bytes) -> None:
    # A command that ends without reading all of its input is no error: its exit code tells the story.
    with contextlib.suppress(GuestFailed, OSError):
        for start in range(0, len(stdin), STDIN_CHUNK_BYTES):
            await execution.write_stdin(stdin[start : start + STDIN_CHUNK_BYTES])
        await execution.close_stdin()
