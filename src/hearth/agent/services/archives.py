"""TAR_READ and TAR_WRITE: whole trees out of the guest and into it, never held whole."""

from __future__ import annotations

import os
from collections.abc import Callable

from hearth.agent.body import Body
from hearth.agent.connection import Connection
from hearth.agent.files.archive import read_archive, write_archive
from hearth.agent.files.paths import make_parents, owner_named, owner_of_new
from hearth.agent.state import Agent
from hearth.wire.frames import FrameType
from hearth.wire.messages import PathRequest, Status, TarWriteRequest, decode

_OK = Status(status="ok")


class ArchiveService:
    """Packs and unpacks."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    def handlers(self) -> dict[int, Callable[[Connection, bytes], None]]:
        """Give the requests this service answers."""
        return {FrameType.TAR_READ_REQ: self.read, FrameType.TAR_WRITE_REQ: self.write}

    def read(self, connection: Connection, payload: bytes) -> None:
        """Send a tree."""
        self._agent.touch()
        path = decode(PathRequest, payload).path
        os.stat(path)
        connection.send_message(FrameType.TAR_READ_RESP, _OK)
        write_archive(path, _FrameWriter(connection))
        connection.send_exit(0)

    def write(self, connection: Connection, payload: bytes) -> None:
        """Unpack what comes, up to STDIN_EOF."""
        self._agent.touch()
        request = decode(TarWriteRequest, payload)
        path, owner = request.path, owner_named(self._agent, request.user)
        make_parents(self._agent, path, owner=owner)
        top = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            reader = _BodyReader(Body(connection, self._agent.patience.body_s))
            read_archive(reader, top, owner or owner_of_new(self._agent, os.fstat(top)))
            while reader.read(0):  # what some writers put behind the archive's end, up to our own
                continue
        finally:
            os.close(top)
        connection.send_message(FrameType.TAR_WRITE_RESP, _OK)


class _FrameWriter:
    """What is written leaves as STDOUT frames."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def write(self, data: bytes) -> int:
        """Send bytes, no more than a frame holds."""
        self._connection.send(FrameType.STDOUT, data)
        return len(data)


class _BodyReader:
    """A body as a stream that ends with STDIN_EOF."""

    def __init__(self, body: Body) -> None:
        self._body = body
        self._ended = False

    def read(self, _size: int) -> bytes:
        """Give the next piece, empty at the end.

        Raises:
            Refused: the body broke off, see ``Body.next``.
        """
        while not self._ended:
            piece = self._body.next()
            if piece is None:
                self._ended = True
            elif piece:
                return piece
        return b""
