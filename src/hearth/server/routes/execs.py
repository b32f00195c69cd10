"""POST /api/v1/sandboxes/{ref}/exec: buffered JSON, or a stream of NDJSON that always ends in ``exit`` or ``error``."""

from __future__ import annotations

import asyncio
import contextlib

import msgspec
import structlog
from starlette.types import ASGIApp, Receive, Scope, Send

from hearth.api.limits import MAX_BUFFERED_OUTPUT_BYTES, NDJSON
from hearth.api.operations import EXEC
from hearth.api.problems import event_of, internal_error
from hearth.api.schemas import Event, ExecCommand, ExecResult, ExitEvent
from hearth.errors import HearthError, Unavailable
from hearth.server.disconnect import unless_gone
from hearth.server.execution import running, stdin_of
from hearth.server.middleware.problems import note
from hearth.server.outputs import Buffer, EventEncoder, result_of
from hearth.server.resource import Call, bind

log = structlog.get_logger(__name__)

LAST_LINE_S = 5.0
"""How long the caller has to take the line that tells of an error; the command is gone by then."""


async def run(call: Call[ExecCommand]) -> ExecResult | ASGIApp:
    stdin = stdin_of(call.input)
    if NDJSON in call.request.headers.get("accept", ""):
        return ExecStream(call, stdin)
    return await unless_gone(call.request.receive, _buffered(call, stdin))


async def _buffered(call: Call[ExecCommand], stdin: bytes) -> ExecResult:
    buffers = {"stdout": Buffer(MAX_BUFFERED_OUTPUT_BYTES), "stderr": Buffer(MAX_BUFFERED_OUTPUT_BYTES)}
    async with running(call, stdin) as execution:
        async for output in execution:
            buffers[output.stream].add(output.data)
        return result_of(execution.exit_code, buffers["stdout"], buffers["stderr"])


class ExecStream:
    """The streaming answer; its head goes out once the sandbox took the command, until then errors are problems."""

    def __init__(self, call: Call[ExecCommand], stdin: bytes) -> None:
        self.call = call
        self.stdin = stdin
        self.begun = False

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        await unless_gone(receive, self._answer(send))

    async def _answer(self, send: Send) -> None:
        try:
            await self._stream(send)
        except HearthError as error:
            if not self.begun:
                raise
            note(error)
            await self._last(send, error)
        except asyncio.CancelledError:
            # The caller left, then nobody reads this; or the daemon stops and the caller shall know.
            if self.begun:
                await self._last(send, Unavailable("the daemon is stopping", resolution="run the command again later"))
            raise
        except Exception:
            if not self.begun:
                raise
            log.exception("unexpected error in a stream")
            await self._last(send, internal_error(self.call.request_id))

    async def _stream(self, send: Send) -> None:
        encoders = {"stdout": EventEncoder("stdout"), "stderr": EventEncoder("stderr")}
        async with running(self.call, self.stdin) as execution:
            self.begun = True
            headers = [(b"content-type", NDJSON.encode()), (b"cache-control", b"no-store")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            async for output in execution:
                if event := encoders[output.stream].feed(output.data):
                    await send({"type": "http.response.body", "body": line_of(event), "more_body": True})
            rests = [event for encoder in encoders.values() if (event := encoder.finish())]
            last = [*rests, ExitEvent(exit_code=execution.exit_code)]
            await send({"type": "http.response.body", "body": b"".join(map(line_of, last)), "more_body": False})

    async def _last(self, send: Send, error: HearthError) -> None:
        line = line_of(event_of(error, self.call.request_id))
        with contextlib.suppress(TimeoutError):  # a caller who does not read is cut off
            async with asyncio.timeout(LAST_LINE_S):
                await send({"type": "http.response.body", "body": line, "more_body": False})


def line_of(event: Event) -> bytes:
    """Give an event as one line."""
    return msgspec.json.encode(event) + b"\n"


BOUND = (bind(EXEC, run),)
