"""Writes every change, and every attempt at one, into the audit log before its answer goes out."""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hearth.api.operation import Operation
from hearth.api.problems import status_of
from hearth.control.daemon import Daemon
from hearth.control.users import Caller
from hearth.errors import Code, HearthError, RateLimited
from hearth.host.identity import new_id
from hearth.server.middleware.access_log import CLIENT_GONE
from hearth.server.peer import address_of
from hearth.server.subjects import subject_of
from hearth.tenancy import AuditEntry, KeyScope

INTERNAL_STATUS = 500


class Audited:
    """Around ``Authenticated``: who was refused for what a key may not is in the log, too; strangers are not.

    Use of a sandbox (scope exec: commands, sleep) is noted without making its caller wait for the disk.
    """

    def __init__(self, app: ASGIApp, *, daemon: Daemon, operation: Operation[Any, Any]) -> None:
        self.app = app
        self.daemon = daemon
        self.operation = operation
        self.waits = not KeyScope.EXEC.allows(operation.needed_scope)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        told = False

        async def send_and_tell(message: Message) -> None:
            nonlocal told
            if message["type"] == "http.response.start" and not told:
                told = True
                await self._tell(scope, message["status"], None)
            await send(message)

        try:
            await self.app(scope, receive, send_and_tell)
        except (ClientDisconnect, asyncio.CancelledError):
            if not told:
                note_of(self.daemon, self.operation, scope, CLIENT_GONE, Code.CANCELLED)
            raise
        except RateLimited:
            raise  # a row for each would let whoever asks too much write to the disk as fast
        except HearthError as error:
            if not told:
                await self._tell(scope, status_of(error), error.code)
            raise
        except Exception:
            # It passes on to where it is told to the log; here only that the change was tried.
            if not told:
                await self._tell(scope, INTERNAL_STATUS, Code.INTERNAL)
            raise

    async def _tell(self, scope: Scope, status: int, code: Code | None) -> None:
        writing = note_of(self.daemon, self.operation, scope, status, code)
        if writing is not None and self.waits:
            await asyncio.wait([writing])


def note_of(
    daemon: Daemon, operation: Operation[Any, Any], scope: Scope, status: int, code: Code | None
) -> asyncio.Task[None] | None:
    """Note what somebody known did; gives what writes it, None for strangers."""
    caller: Caller | None = scope["state"].get("caller")
    if caller is None:
        return None
    audit = daemon.audit
    return audit.note(
        AuditEntry(
            id=new_id("au"),
            created_at=audit.now(),
            user_id=caller.user.id,
            user_name=caller.user.name,
            key_id=None if caller.key is None else caller.key.id,
            action=operation.name,
            object=subject_of(scope),
            status=status,
            code=None if code is None else code.value,
            remote=address_of(scope) or "unix",
            request_id=scope["state"]["request_id"],
        )
    )
