"""/api/v1/sandboxes/{ref}/sessions: which there are, and the end of one."""

from __future__ import annotations

from datetime import UTC, datetime

from hearth.api.schemas import Nothing
from hearth.api.session_operations import KILL_SESSION, LIST_SESSIONS
from hearth.api.session_schemas import SessionList, SessionView
from hearth.server.resource import Call, bind
from hearth.wire.messages import SessionInfo

MAX_NUMBER = 2**31 - 1
MAX_UNIX_S = 253_402_300_799
"""The end of the year 9999: what a guest says of its clock need not be true."""


async def list_sessions(call: Call[Nothing]) -> SessionList:
    async with call.daemon.sandboxes.awake(call.user, call.ref) as guest:
        return SessionList(items=[_view(info) for info in await guest.sessions.list()])


async def kill(call: Call[Nothing]) -> Nothing:
    async with call.daemon.sandboxes.awake(call.user, call.ref) as guest:
        await guest.sessions.kill(call.request.path_params["session"])
    return Nothing()


def created_at(info: SessionInfo) -> datetime:
    """Give when a session began, by the guest's clock."""
    return datetime.fromtimestamp(min(max(info.created_at, 0), MAX_UNIX_S), UTC)


def shown(text: str) -> str:
    """Give a guest's text as JSON may hold it."""
    return text.encode("utf-8", "replace").decode()


def _view(info: SessionInfo) -> SessionView:
    return SessionView(
        session_id=shown(info.session_id),
        argv=shown(info.argv),
        tty=info.tty,
        running=info.running,
        attached=info.attached,
        created_at=created_at(info),
        exit_code=_bounded(info.exit_code),
        restarts=_bounded(info.restarts),
        healthy=info.healthy,
    )


def _bounded(number: int | None) -> int | None:
    """Keep a guest's number to what JSON readers take."""
    return None if number is None else min(max(number, -MAX_NUMBER), MAX_NUMBER)


BOUND = (bind(LIST_SESSIONS, list_sessions), bind(KILL_SESSION, kill))
