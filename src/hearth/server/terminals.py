"""``…/ws`` and ``…/exec/ws``: a client and a session, message by message. docs/terminals.md is the contract."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any

import msgspec
from starlette.requests import ClientDisconnect

from hearth.api.limits import FIRST_MESSAGE_S
from hearth.api.refusals import refusal
from hearth.api.schemas import ExitEvent
from hearth.api.session_operations import OPEN_PIPED, OPEN_TERMINAL
from hearth.api.session_schemas import (
    Authenticate,
    EndInput,
    OpenPiped,
    OpenTerminal,
    Resize,
    SendSignal,
    SessionOpened,
    StartSession,
)
from hearth.control.lines import Line, Opening
from hearth.control.users import require_scope
from hearth.errors import Conflict, InvalidInput, NotFound, RequestTimeout, StartFailed
from hearth.guest.client import Guest
from hearth.guest.sessions import Shell
from hearth.server.execution import signal_number
from hearth.server.inputs import read_body
from hearth.server.routes.secrets import secret_use
from hearth.server.routes.sessions import created_at, shown
from hearth.server.sockets import SocketBound, Stopping, Visit
from hearth.server.standing import KeyEnded, Standing
from hearth.tenancy import KeyScope
from hearth.wire.messages import ExecRequest

NORMAL = 1000
SHELLS = (["bash", "-l"], ["sh", "-l"])
"""A terminal's command unless told otherwise: the first that is there."""
Message = Resize | SendSignal | EndInput | Authenticate
_MESSAGE: msgspec.json.Decoder[Message] = msgspec.json.Decoder(Message)


async def terminal(visit: Visit) -> int:
    """Serve a terminal."""
    wanted: OpenTerminal = visit.wanted
    return await serve(visit, functools.partial(open_terminal, wanted), size=(wanted.rows, wanted.cols))


async def piped(visit: Visit) -> int:
    """Serve a piped session."""
    wanted: OpenPiped = visit.wanted
    if wanted.session is not None:
        opening = functools.partial(attach, wanted.session, wanted.if_detached, wanted.after, tty=False)
        return await serve(visit, opening)
    order = await first_order(visit)
    request = ExecRequest(
        argv=list(order.cmd),
        env={**order.env, **await secrets_of(visit, order)},
        cwd=order.cwd,
        user=order.user,
        max_idle_sec=order.max_idle_sec,
        session=True,
    )
    return await serve(visit, functools.partial(start, request))


async def serve(visit: Visit, opening: Opening, *, size: tuple[int | None, int | None] = (None, None)) -> int:
    """Open a session, and move bytes until its end or the client's."""
    settings = visit.daemon.sandboxes.workshop.settings
    async with Line(visit.daemon.sandboxes, visit.daemon.lines, visit.sandbox, idle_s=settings.terminal_idle_s) as line:
        await line.open(opening)
        await visit.socket.send_text(msgspec.json.encode(opened(line)))
        if line.info.tty and None not in size and line.info.running:
            await line.resize(size[0] or 0, size[1] or 0)
        await first_to_end(
            to_client(visit, line),
            to_session(visit, line),
            visit.socket.keep_alive(),
            until_refused(visit),
            until_stopping(visit),
        )
        if line.exit_code is None:
            return NORMAL
        await visit.socket.send_text(msgspec.json.encode(ExitEvent(exit_code=line.exit_code)))
    return NORMAL


async def first_to_end(*works: Coroutine[Any, Any, None]) -> None:
    """Run until the first ends; the others are cancelled. What it raises is raised; of several, by their order."""
    tasks = [asyncio.create_task(work, name="socket work") for work in works]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        ended = [task for task in tasks if task.done()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in ended:
        task.result()


async def to_client(visit: Visit, line: Line) -> None:
    """Carry output; the client's slowness is the process's."""
    async for data in line:
        await visit.socket.send_bytes(data)


async def to_session(visit: Visit, line: Line) -> None:
    """Carry input, and do what messages say, until the client closes."""
    while (message := await visit.socket.receive()) is not None:
        if isinstance(message, bytes):
            await line.write(message)
        else:
            await obey(line, read_message(message))


async def obey(line: Line, message: Message) -> None:
    """Do what a message says."""
    if isinstance(message, Resize):
        if line.info.tty:
            await line.resize(message.rows, message.cols)
    elif isinstance(message, SendSignal):
        await line.signal(signal_number(message.signal))
    elif isinstance(message, EndInput):
        await line.end_input()
    else:
        raise InvalidInput(
            "invalid message", details="the client is known already", resolution="leave 'auth' out", field="type"
        )


async def until_refused(visit: Visit) -> None:
    """Wait until the client's key ends. Raises KeyEnded then."""
    await Standing(users=visit.daemon.users, caller=visit.caller).ended()
    raise KeyEnded


async def until_stopping(visit: Visit) -> None:
    """Wait until the daemon stops. Raises Stopping then."""
    await visit.crowd.stopping.wait()
    raise Stopping


def read_message(text: str) -> Message:
    """Read a message of an open session.

    Raises:
        InvalidInput: it is none.
    """
    try:
        return _MESSAGE.decode(text.encode())
    except msgspec.ValidationError as error:
        raise refusal(str(error), _plain(text), whole="message") from error
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidInput(
            "invalid message",
            details="a text message is not JSON",
            resolution="send input in binary messages, and JSON objects in text messages",
            field="message",
        ) from error


async def first_order(visit: Visit) -> StartSession:
    """Take the message that says what to run.

    Raises:
        RequestTimeout: it did not come in time.
        InvalidInput: it is another.
        ClientDisconnect: the client left.
    """
    try:
        async with asyncio.timeout(FIRST_MESSAGE_S):
            message = await visit.socket.receive()
    except TimeoutError as error:
        raise RequestTimeout(
            "nothing was asked for",
            details=f"no message came within {FIRST_MESSAGE_S} s",
            resolution='send {"cmd":[…]} first',
        ) from error
    if message is None:
        raise ClientDisconnect
    if isinstance(message, bytes):
        raise InvalidInput(
            "invalid message",
            details="the first message is binary",
            resolution='say what to run first: {"cmd":[…]}',
            field="message",
        )
    return read_body(StartSession, message.encode())


async def secrets_of(visit: Visit, order: StartSession) -> Mapping[str, str]:
    """Give the variables that are secrets of the caller's. Raises as ``routes.secrets.secret_variables``."""
    if not order.secrets:
        return {}
    require_scope(visit.caller, KeyScope.WRITE)
    return await visit.daemon.secrets.environment(visit.caller.user, [secret_use(each) for each in order.secrets])


async def open_terminal(wanted: OpenTerminal, guest: Guest, line: Line) -> Shell:
    """Attach to the terminal that is wanted, or start one."""
    if wanted.session is not None:
        return await attach(wanted.session, wanted.if_detached, wanted.after, guest, line, tty=True)
    if not wanted.new and not starts_something(wanted):
        for info in reversed(await guest.sessions.list()):
            if info.tty and info.running and not info.attached and not is_held(line, info.session_id):
                try:
                    return await attach(info.session_id, True, None, guest, line, tty=True)
                except (NotFound, Conflict):  # it ended, or somebody was faster
                    continue
    for argv in [list(wanted.cmd)] if wanted.cmd else SHELLS:
        request = ExecRequest(
            argv=argv,
            env=dict(each.split("=", 1) for each in wanted.env),
            cwd=wanted.cwd,
            user=wanted.user,
            max_idle_sec=wanted.max_idle_sec,
            tty=True,
            rows=wanted.rows or 24,
            cols=wanted.cols or 80,
        )
        try:
            return await start(request, guest, line)
        except StartFailed:
            if wanted.cmd or argv is SHELLS[-1]:
                raise
    raise AssertionError("there is a last shell")


async def start(request: ExecRequest, guest: Guest, _line: Line) -> Shell:
    """Start a session."""
    return await guest.sessions.open(request).__aenter__()


async def attach(
    session_id: str, if_detached: bool, after: int | None, guest: Guest, line: Line, *, tty: bool
) -> Shell:
    """Attach to a session.

    Raises:
        NotFound: there is none of that id.
        InvalidInput: it is of the other kind.
        Conflict: somebody else is attached, and is to stay.
    """
    if if_detached and is_held(line, session_id):
        raise Conflict(
            "the session is attached",
            details=f"another client has {session_id}",
            resolution="leave out if_detached to take it over",
            field="session",
        )
    await check_kind(session_id, guest, tty=tty)
    give_back = line.lines.claim(line, session_id)
    try:
        return await guest.sessions.attach(session_id, if_detached=if_detached, after=after).__aenter__()
    except BaseException:
        give_back()
        raise


async def check_kind(session_id: str, guest: Guest, *, tty: bool) -> None:
    """See that a session is of this kind, before it is taken from anybody. Raises as ``attach``."""
    info = next((each for each in await guest.sessions.list() if each.session_id == session_id), None)
    if info is None:
        raise NotFound("no such session", details=session_id, resolution="list them, or start a new one")
    if info.tty is not tty:
        raise InvalidInput(
            "the session is of the other kind",
            details=f"{session_id} is {'a terminal' if info.tty else 'a piped session'}",
            resolution=f"use {'/ws' if info.tty else '/exec/ws'} for it",
            field="session",
        )


def is_held(line: Line, session_id: str) -> bool:
    """Tell whether a session is another client's, also one that lets its sandbox sleep."""
    return line.lines.holder(line.sandbox.id, session_id) is not None


def check_piped(wanted: OpenPiped) -> None:
    """See that what is wanted goes together. Raises InvalidInput naming what does not."""
    if wanted.session is None and (wanted.if_detached or wanted.after is not None):
        field = "if_detached" if wanted.if_detached else "after"
        raise InvalidInput(
            f"invalid {field}",
            details=f"{field} is about a session that is there",
            resolution="name it by session, or leave it out",
            field=field,
        )


def check_terminal(wanted: OpenTerminal) -> None:
    """See that what is wanted goes together. Raises InvalidInput naming what does not."""
    check_piped(OpenPiped(session=wanted.session, if_detached=wanted.if_detached, after=wanted.after))
    for field in ("new", "cmd", "env", "cwd", "user", "max_idle_sec"):
        if wanted.session is not None and getattr(wanted, field):
            raise InvalidInput(
                f"invalid {field}",
                details=f"{field} is for a new session, and session names one",
                resolution="leave out one of the two",
                field=field,
            )
    if (wanted.rows is None) is not (wanted.cols is None):
        field = "cols" if wanted.cols is None else "rows"
        raise InvalidInput(
            f"invalid {field}", details=f"{field} is missing", resolution="give rows and cols", field=field
        )


def starts_something(wanted: OpenTerminal) -> bool:
    """Tell whether a query says what a new terminal is to be."""
    return bool(wanted.cmd or wanted.env or wanted.cwd or wanted.user or wanted.max_idle_sec)


def opened(line: Line) -> SessionOpened:
    """Give the first message."""
    info = line.info
    return SessionOpened(
        session_id=shown(info.session_id),
        argv=shown(info.argv),
        tty=info.tty,
        running=info.running,
        created_at=created_at(info),
        position=info.position,
    )


def _plain(text: str) -> Any:
    try:
        return msgspec.json.decode(text.encode())
    except (msgspec.DecodeError, RecursionError):
        return None


SOCKETS: Sequence[SocketBound] = (
    SocketBound(operation=OPEN_TERMINAL, check=check_terminal, talk=terminal),
    SocketBound(operation=OPEN_PIPED, check=check_piped, talk=piped),
)
