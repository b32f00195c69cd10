"""File requests. Paths are used as given: below the sandbox's root there is nothing else to reach."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

from hearth.agent.body import Body
from hearth.agent.connection import Connection
from hearth.agent.files import reading, tree
from hearth.agent.files.paths import file_info, first_names, make_parents, octal, open_regular, owner_named, parse_mode
from hearth.agent.files.writing import AtomicWrite
from hearth.agent.refusal import Refused, refused
from hearth.agent.state import Agent
from hearth.wire.faults import Fault
from hearth.wire.frames import FrameType
from hearth.wire.messages import (
    ChangeModeRequest,
    FileInfo,
    FileRangeRequest,
    FileReadRequest,
    FileReadResponse,
    FileWriteRequest,
    MakeDirectoryRequest,
    MoveRequest,
    PathRequest,
    RemoveRequest,
    Status,
    decode,
    encode_list,
)

MAX_WRITE_BYTES = 100 * 1024 * 1024
MAX_LISTED = 10_000
_LISTED_PER_FRAME = 500
"""A name has at most 255 bytes, 1 530 as JSON: so many entries stay under a frame's 1 MiB."""
_OK = Status(status="ok")


class FileService:
    """Reads, writes and arranges files."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    def handlers(self) -> dict[int, Callable[[Connection, bytes], None]]:
        """Give the requests this service answers; each of them is activity."""
        table: dict[int, Callable[[Connection, bytes], None]] = {
            FrameType.FILE_READ_REQ: self._read,
            FrameType.FILE_READ_RANGE_REQ: self._read_range,
            FrameType.FILE_WRITE_REQ: self._write,
            FrameType.FILE_STAT_REQ: self._stat,
            FrameType.FILE_LS_REQ: self._list,
            FrameType.FILE_MKDIR_REQ: self._make_directory,
            FrameType.FILE_REMOVE_REQ: self._remove,
            FrameType.FILE_MOVE_REQ: self._move,
            FrameType.FILE_CHMOD_REQ: self._change_mode,
        }
        return {frame_type: self._noted(handler) for frame_type, handler in table.items()}

    def _noted(self, handler: Callable[[Connection, bytes], None]) -> Callable[[Connection, bytes], None]:
        def handle(connection: Connection, payload: bytes) -> None:
            self._agent.touch()
            handler(connection, payload)

        return handle

    def _read(self, connection: Connection, payload: bytes) -> None:
        request = decode(FileReadRequest, payload)
        reading.check(request)
        descriptor, status = open_regular(request.path)
        try:
            pieces = reading.pieces_of(descriptor, status.st_size)
            if (request.offset, request.limit, request.max_bytes) != (None, None, None):
                pieces = reading.select(
                    pieces, offset=request.offset or 1, limit=request.limit, max_bytes=request.max_bytes
                )
            self._send(connection, FrameType.FILE_READ_RESP, status, pieces)
        finally:
            os.close(descriptor)

    def _read_range(self, connection: Connection, payload: bytes) -> None:
        request = decode(FileRangeRequest, payload)
        for name, value in (("start", request.start), ("length", request.length)):
            if value is not None and value < 0:
                raise refused(Fault.INVALID, f"{name} is {value}, the least is 0")
        descriptor, status = open_regular(request.path)
        try:
            pieces = reading.pieces_of(descriptor, status.st_size, start=request.start, length=request.length)
            self._send(connection, FrameType.FILE_READ_RANGE_RESP, status, pieces)
        finally:
            os.close(descriptor)

    def _send(self, connection: Connection, reply: FrameType, status: os.stat_result, pieces: Iterator[bytes]) -> None:
        connection.send_message(reply, FileReadResponse(size=status.st_size, mode=octal(status.st_mode)))
        for piece in pieces:
            connection.send(FrameType.STDOUT, piece)
        connection.send_exit(0)

    def _write(self, connection: Connection, payload: bytes) -> None:
        request = decode(FileWriteRequest, payload)
        if request.size < 0:
            raise refused(Fault.INVALID, f"size is {request.size}")
        if request.size > MAX_WRITE_BYTES and not request.large:
            raise refused(Fault.TOO_LARGE, f"size is {request.size}, the most is {MAX_WRITE_BYTES}")
        owner = owner_named(self._agent, request.user)
        with AtomicWrite(self._agent, request.path, request.size, parse_mode(request.mode), owner=owner) as file:
            body = Body(connection, self._agent.patience.body_s)
            while body.size < request.size:
                piece = body.next()
                if piece is None:
                    raise refused(Fault.INVALID, f"the body ended after {body.size} of {request.size} bytes")
                if body.size > request.size:
                    raise self._surplus(request.size)
                file.write(piece)
            connection.fill()
            while (extra := connection.next_frame()) is not None:
                if self._check_body(extra.type, extra.payload):
                    raise self._surplus(request.size)
            file.commit()
        connection.send_message(FrameType.FILE_WRITE_RESP, _OK)

    def _check_body(self, frame_type: int, payload: bytes) -> int:
        if frame_type == FrameType.STDIN:
            return len(payload)
        if frame_type == FrameType.STDIN_EOF:
            return 0
        raise refused(Fault.PROTOCOL, f"frame type 0x{frame_type:02x} in a body")

    def _surplus(self, size: int) -> Refused:
        return refused(Fault.INVALID, f"the body has more than {size} bytes")

    def _stat(self, connection: Connection, payload: bytes) -> None:
        path = decode(PathRequest, payload).path
        connection.send_message(FrameType.FILE_STAT_RESP, file_info(_base_name(path), os.stat(path)))

    def _list(self, connection: Connection, payload: bytes) -> None:
        path = decode(PathRequest, payload).path
        names, total = first_names(path, MAX_LISTED)
        frame: list[FileInfo] = []
        for name in names:
            try:
                frame.append(file_info(name, os.lstat(os.path.join(path, name))))
            except FileNotFoundError:  # removed since it was listed
                continue
            if len(frame) == _LISTED_PER_FRAME:
                connection.send(FrameType.FILE_LS_RESP, encode_list(frame))
                frame = []
        if total > MAX_LISTED:
            frame.append(_sentinel(total))
        connection.send(FrameType.FILE_LS_RESP, encode_list(frame))

    def _make_directory(self, connection: Connection, payload: bytes) -> None:
        request = decode(MakeDirectoryRequest, payload)
        mode = parse_mode(request.mode)
        make_parents(self._agent, request.path, 0o755 if mode is None else mode)
        connection.send_message(FrameType.FILE_MKDIR_RESP, _OK)

    def _remove(self, connection: Connection, payload: bytes) -> None:
        request = decode(RemoveRequest, payload)
        tree.remove(request.path, recursive=request.recursive)
        connection.send_message(FrameType.FILE_REMOVE_RESP, _OK)

    def _move(self, connection: Connection, payload: bytes) -> None:
        request = decode(MoveRequest, payload)
        tree.move(request.path, request.to, overwrite=request.overwrite)
        connection.send_message(FrameType.FILE_MOVE_RESP, _OK)

    def _change_mode(self, connection: Connection, payload: bytes) -> None:
        request = decode(ChangeModeRequest, payload)
        mode = parse_mode(request.mode)
        assert mode is not None
        tree.change_mode(request.path, mode, recursive=request.recursive)
        connection.send_message(FrameType.FILE_CHMOD_RESP, _OK)


def _base_name(path: str) -> str:
    return os.path.basename(path.rstrip("/")) or "/"


def _sentinel(total: int) -> FileInfo:
    """The entry that says how many there are, in its name and its size; no file can be called so, for its slash."""
    return FileInfo(name=f"…/{total} entries", size=total, mode="0000", is_dir=False, mtime=0)
