"""/api/v1/sandboxes/{ref}/exec and /api/v1/execs/{ref}: run commands, look at them, follow, feed and kill them."""

from __future__ import annotations

import contextlib
import functools
from typing import Any

from starlette.types import ASGIApp

from hearth.api.exec_operations import (
    DELETE_EXEC,
    EXEC,
    FEED_EXEC,
    GET_EXEC,
    KILL_EXEC,
    LIST_EXECS,
    READ_OUTPUT,
)
from hearth.api.exec_schemas import ExecInput, ExecList, ExecView, KillExec, ListExecs, ReadOutput
from hearth.api.limits import MAX_BUFFERED_OUTPUT_BYTES, NDJSON
from hearth.api.schemas import ExecCommand, ExecResult, ExitEvent, Nothing
from hearth.control.exec_follow import Gap
from hearth.control.exec_kept import KeptRun
from hearth.control.exec_run import ExecOrder
from hearth.control.execs import Following
from hearth.execs import ExecState
from hearth.server.disconnect import unless_gone
from hearth.server.execution import bytes_of, exec_view, order_of, signal_number
from hearth.server.outputs import Buffer, OutputEncoder, result_of
from hearth.server.resource import Call, Reply, bind
from hearth.server.routes.secrets import secret_variables
from hearth.server.streams import Lines, OutputLines, attended, stopping
from hearth.store.base import PageRequest


async def run(call: Call[ExecCommand]) -> ExecResult | Reply[Any] | ASGIApp:
    order = order_of(call.input, await secret_variables(call))
    if order.detached:
        started = await call.daemon.execs.start(call.user, call.ref, order)
        return Reply(value=exec_view(started.exec), status=202)
    if NDJSON in call.request.headers.get("accept", ""):
        if not order.kept:
            return PlainStream(call, order)
        opening = functools.partial(_start, call, order)
        return OutputLines(opening, call.request_id, attaches=True, waits=True, cursors=False)
    return await unless_gone(call.request.receive, (_kept if order.kept else _plain)(call, order))


async def _plain(call: Call[ExecCommand], order: ExecOrder) -> ExecResult:
    stdout, stderr = Buffer(MAX_BUFFERED_OUTPUT_BYTES), Buffer(MAX_BUFFERED_OUTPUT_BYTES)
    async with call.daemon.execs.run(call.user, call.ref, order) as running:
        async for output in running:
            (stdout if output.stream == "stdout" else stderr).add(output.data)
        return result_of(running.exit_code, stdout, stderr, running.exec.id)


async def _kept(call: Call[ExecCommand], order: ExecOrder) -> ExecResult:
    stdout, stderr = Buffer(MAX_BUFFERED_OUTPUT_BYTES), Buffer(MAX_BUFFERED_OUTPUT_BYTES)
    following = await _start(call, order)
    started = following.run
    assert isinstance(started, KeptRun)
    with attended(started, following):
        async with contextlib.aclosing(following.follower.pieces(waits=True)) as pieces:
            async for piece in pieces:
                if not isinstance(piece, Gap):
                    (stdout if piece.stream == "stdout" else stderr).add(piece.data)
                started.progressed()
    ended = started.exec
    if ended.failure is not None:
        raise ended.failure.error()
    if ended.exit_code is None:
        raise stopping()
    return result_of(ended.exit_code, stdout, stderr, ended.id)


async def _start(call: Call[ExecCommand], order: ExecOrder) -> Following:
    execs = call.daemon.execs
    return execs.following(await execs.start(call.user, call.ref, order))


class PlainStream(Lines):
    """The output of a command that ends with its client."""

    def __init__(self, call: Call[ExecCommand], order: ExecOrder) -> None:
        super().__init__(call.request_id)
        self._call = call
        self._order = order

    async def events(self) -> None:
        encoder = OutputEncoder()
        async with self._call.daemon.execs.run(self._call.user, self._call.ref, self._order) as running:
            await self.begin(running.exec.id)
            async for output in running:
                await self.send(encoder.feed(output.stream, output.data))
            await self.end([*encoder.flush(), ExitEvent(exit_code=running.exit_code)])


async def list_execs(call: Call[ListExecs]) -> ExecList:
    query = call.input
    states = [ExecState(state) for state in query.state]
    request = PageRequest(limit=query.limit, cursor=query.cursor)
    page = await call.daemon.execs.list(call.user, call.ref, states=states, page=request)
    return ExecList(items=[exec_view(each) for each in page.items], next_cursor=page.next_cursor)


async def get(call: Call[Nothing]) -> ExecView:
    return exec_view(await call.daemon.execs.get(call.user, call.ref))


async def output(call: Call[ReadOutput]) -> ASGIApp:
    query = call.input
    opening = functools.partial(call.daemon.execs.follow, call.user, call.ref, query.after)
    return OutputLines(opening, call.request_id, attaches=query.attach, waits=query.follow, cursors=True)


async def feed(call: Call[ExecInput]) -> Nothing:
    data = bytes_of(call.input.data, call.input.encoding, field="data")
    await call.daemon.execs.feed(call.user, call.ref, data, ends=call.input.eof)
    return Nothing()


async def kill(call: Call[KillExec]) -> ExecView:
    number = signal_number(call.input.signal)
    return exec_view(await call.daemon.execs.signal(call.user, call.ref, number))


async def delete(call: Call[Nothing]) -> Nothing:
    await call.daemon.execs.forget(call.user, call.ref)
    return Nothing()


BOUND = (
    bind(EXEC, run),
    bind(LIST_EXECS, list_execs),
    bind(GET_EXEC, get),
    bind(READ_OUTPUT, output),
    bind(FEED_EXEC, feed),
    bind(KILL_EXEC, kill),
    bind(DELETE_EXEC, delete),
)
