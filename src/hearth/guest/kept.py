"""A command that outlives its connection, as the host sees it: where its output goes on, and what of it is safe now."""

from __future__ import annotations

from typing import Self

from hearth.errors import GuestFailed
from hearth.guest.execution import ProcessStream, read_exit
from hearth.guest.faults import Deadline, decode_reply, protocol_broken
from hearth.wire import frames
from hearth.wire.frames import FrameType, ProtocolError
from hearth.wire.messages import KeptInfo

TIMED_OUT = -1
"""What EXIT tells of a kept command that its time limit has ended."""
MAX_POSITION = 2**62
"""Four exbibytes: what follows stays below what a database holds."""


class KeptExecution(ProcessStream):
    """The client of a kept command. Leaving the context ends the connection, and nothing else.

    ``info`` is the command as it stood when this client came.
    """

    info: KeptInfo
    timed_out = False

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        try:
            async with Deadline(self._connector.patience.reply_s, "starting the command"):
                frame = await self._open_connection.expect(FrameType.EXEC_KEPT)
            self.info = decode_reply(KeptInfo, frame.payload)
        except BaseException:
            self._open_connection.close()
            raise
        return self

    async def acknowledge(self, position: int) -> None:
        """Say that all output before ``position`` is kept here now.

        Raises:
            GuestFailed: the connection is gone.
        """
        await self._send(frames.encode_ack(position))

    async def release(self) -> None:
        """Have the agent forget the command; one that still runs ends with the connection.

        Raises:
            GuestFailed: the connection is gone.
        """
        await self._send(frames.encode(FrameType.RELEASE))

    def _read_exit(self, payload: bytes) -> int:
        try:
            if frames.parse_exit(payload) == TIMED_OUT:
                self.timed_out = True
                return 128 + 9
        except ProtocolError as error:
            raise protocol_broken(error) from error
        return read_exit(payload)


def check_position(info: KeptInfo, wanted: int) -> int:
    """Give where the output goes on: at ``wanted``, or behind it where the agent could not keep all.

    Raises:
        GuestFailed: the guest is said to have written less than it was seen to.
    """
    if not wanted <= info.position <= MAX_POSITION:
        raise GuestFailed("the guest broke the protocol", details=f"output {wanted} was here, it says {info.position}")
    return info.position
