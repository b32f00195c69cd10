"""Sessions: processes that outlive their connection, and the shell that is attached to one."""

from __future__ import annotations

from typing import Self

from hearth.errors import InvalidInput
from hearth.guest.connector import Connector
from hearth.guest.execution import ProcessStream, read_exit
from hearth.guest.faults import Deadline, decode_reply, decode_reply_list, encode_request
from hearth.wire.frames import FrameType
from hearth.wire.messages import ExecKillRequest, ExecRequest, SessionInfo


class Shell(ProcessStream):
    """The client attached to a session. Leaving the context detaches, the process goes on.

    ``info`` is the session as it stood when this client came. When another client takes the session over, this one's
    output ends with exit code 0.
    """

    info: SessionInfo

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        try:
            async with Deadline(self._connector.patience.reply_s, "opening the session"):
                frame = await self._open_connection.expect(FrameType.SESSION_INFO)
            self.info = decode_reply(SessionInfo, frame.payload)
        except BaseException:
            self._open_connection.close()
            raise
        return self


class Sessions:
    """The sessions of one guest."""

    def __init__(self, connector: Connector) -> None:
        self._connector = connector

    def open(self, request: ExecRequest) -> Shell:
        """Start a session (``tty``, or ``session`` for a piped one); entering the shell's context sends the request.

        Raises:
            InvalidInput: the request asks for no session.
        """
        if not (request.tty or request.session) or request.session_id is not None:
            raise InvalidInput("not a session", details="a new session has tty or session set, and no id yet")
        return Shell(self._connector, encode_request(FrameType.EXEC_REQ, request))

    def attach(self, session_id: str, *, if_detached: bool = False, after: int | None = None) -> Shell:
        """Attach to a session: its recent output first (from position ``after`` on, if given), then live.

        Entering the context raises NotFound when there is no such session, and Conflict when ``if_detached`` was
        asked for and somebody else is attached; otherwise that client is sent away.
        """
        request = ExecRequest(session_id=session_id, if_detached=if_detached, after=after)
        return Shell(self._connector, encode_request(FrameType.EXEC_REQ, request))

    async def list(self) -> list[SessionInfo]:
        """List the sessions.

        Raises:
            TimedOut, GuestFailed: the guest did not answer, or wrongly.
        """
        async with Deadline(self._connector.patience.reply_s, "listing sessions"):
            with await self._connector.open(encode_request(FrameType.EXEC_LIST_REQ), urgent=True) as connection:
                frame = await connection.expect(FrameType.EXEC_LIST_RESP)
        return decode_reply_list(SessionInfo, frame.payload)

    async def kill(self, session_id: str) -> None:
        """Kill a session's process group (SIGKILL).

        Raises:
            NotFound: no such session.
            TimedOut, GuestFailed: the guest did not answer, or wrongly.
        """
        request = encode_request(FrameType.EXEC_KILL, ExecKillRequest(session_id=session_id))
        async with Deadline(self._connector.patience.reply_s, "killing the session"):
            with await self._connector.open(request, urgent=True) as connection:
                read_exit((await connection.expect(FrameType.EXIT)).payload)
