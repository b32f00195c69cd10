"""Files of a guest. Paths are the guest's own and are never opened on the host."""

from __future__ import annotations

import builtins
from collections.abc import AsyncIterable, AsyncIterator
from dataclasses import dataclass
from typing import Self

from hearth.errors import GuestFailed
from hearth.guest.connection import Connection
from hearth.guest.connector import Connector
from hearth.guest.faults import Deadline, decode_reply, decode_reply_list, encode_request, printable
from hearth.guest.status import expect_ok
from hearth.guest.transfer import BODY_CHUNK, Download, FileDownload, chunks, upload
from hearth.wire import frames
from hearth.wire.frames import Frame, FrameType
from hearth.wire.messages import (
    ChangeModeRequest,
    FileInfo,
    FileRangeRequest,
    FileReadRequest,
    FileWriteRequest,
    MakeDirectoryRequest,
    MoveRequest,
    PathRequest,
    RemoveRequest,
    TarWriteRequest,
    WatchEvent,
    WatchRequest,
)

MAX_LIST_ENTRIES = 20_000
"""Twice what the agent lists; a guest that sends more is not our agent."""

USUAL_WRITE_BYTES = 100 * 1024 * 1024
"""What the base protocol lets a file have; of more the agent is told that it is meant."""


@dataclass(frozen=True, kw_only=True)
class Listing:
    """A directory's entries. ``total`` is how many it has; the agent tells no more than 10 000 of them."""

    entries: list[FileInfo]
    total: int


class Files:
    """The files of one guest. Every method raises NotFound, Forbidden, Conflict, InvalidInput or NoSpace as the guest's
    system says, TimedOut when it is silent and GuestFailed when it breaks off."""

    def __init__(self, connector: Connector) -> None:
        self._connector = connector

    def read(self, path: str) -> FileDownload:
        """Give a whole file; entering the context opens it."""
        request = encode_request(FrameType.FILE_READ_REQ, FileReadRequest(path=path))
        return FileDownload(self._connector, request, FrameType.FILE_READ_RESP)

    def read_lines(
        self, path: str, *, offset: int | None = None, limit: int | None = None, max_bytes: int | None = None
    ) -> FileDownload:
        """Give ``limit`` lines from the 1-based line ``offset`` on, at most ``max_bytes``; line ends are kept."""
        message = FileReadRequest(path=path, offset=offset, limit=limit, max_bytes=max_bytes)
        return FileDownload(self._connector, encode_request(FrameType.FILE_READ_REQ, message), FrameType.FILE_READ_RESP)

    def read_range(self, path: str, *, start: int, length: int | None = None) -> FileDownload:
        """Give ``length`` bytes from byte ``start`` (0-based) on; None is to the end."""
        message = FileRangeRequest(path=path, start=start, length=length)
        return FileDownload(
            self._connector, encode_request(FrameType.FILE_READ_RANGE_REQ, message), FrameType.FILE_READ_RANGE_RESP
        )

    async def write(
        self,
        path: str,
        body: bytes | AsyncIterable[bytes],
        *,
        size: int | None = None,
        mode: str | None = None,
        user: str | None = None,
    ) -> None:
        """Write a file as a whole or not at all; parents are made.

        Args:
            path: absolute, in the guest.
            body: the content; its ``size`` in bytes must be told when it is a stream.
            mode: octal text; without it an existing file keeps its mode.
            user: whose it becomes; without it an existing file keeps its owner.

        Raises:
            InvalidInput: the body is not of the size that was told; nothing is written.
        """
        if isinstance(body, bytes):
            size = len(body)
        if size is None:
            raise ValueError("a stream needs its size told")
        message = FileWriteRequest(path=path, size=size, mode=mode, large=size > USUAL_WRITE_BYTES, user=user)
        request = encode_request(FrameType.FILE_WRITE_REQ, message)
        if isinstance(body, bytes) and size <= BODY_CHUNK:
            await self._request(
                request + (frames.encode(FrameType.STDIN, body) if body else b""),
                FrameType.FILE_WRITE_RESP,
                "writing a file",
            )
            return
        with await self._connector.open(request) as connection:
            stall_s = self._connector.patience.stall_s
            pieces = chunks(body) if isinstance(body, bytes) else body
            await upload(connection, pieces, FrameType.FILE_WRITE_RESP, stall_s=stall_s, size=size)

    async def stat(self, path: str) -> FileInfo:
        """Tell a file's size, mode and kind; a symlink is followed."""
        request = encode_request(FrameType.FILE_STAT_REQ, PathRequest(path=path))
        async with Deadline(self._connector.patience.work_s, "asking for a file"):
            with await self._connector.open(request) as connection:
                frame = await connection.expect(FrameType.FILE_STAT_RESP)
        return decode_reply(FileInfo, frame.payload)

    async def list(self, path: str) -> Listing:
        """List a directory, sorted; names that are not UTF-8 hold surrogate escapes."""
        request = encode_request(FrameType.FILE_LS_REQ, PathRequest(path=path))
        entries: builtins.list[FileInfo] = []
        async with Deadline(self._connector.patience.work_s, "listing a directory"):
            with await self._connector.open(request) as connection:
                frame: Frame | None = await connection.expect(FrameType.FILE_LS_RESP)
                while frame is not None:
                    entries += decode_reply_list(FileInfo, frame.payload)
                    if len(entries) > MAX_LIST_ENTRIES:
                        raise GuestFailed("the guest broke the protocol", details="a directory list without end")
                    frame = await connection.expect_or_end(FrameType.FILE_LS_RESP)
        return _listing(entries)

    async def make_directory(self, path: str, *, mode: str | None = None) -> None:
        """Make a directory and its parents; one that is there is fine."""
        request = encode_request(FrameType.FILE_MKDIR_REQ, MakeDirectoryRequest(path=path, mode=mode))
        await self._request(request, FrameType.FILE_MKDIR_RESP, "making a directory")

    async def remove(self, path: str, *, recursive: bool = False) -> None:
        """Remove a file, a symlink or an empty directory; ``recursive`` a whole tree."""
        request = encode_request(FrameType.FILE_REMOVE_REQ, RemoveRequest(path=path, recursive=recursive))
        await self._request(request, FrameType.FILE_REMOVE_RESP, "removing a file")

    async def move(self, path: str, to: str, *, overwrite: bool = False) -> None:
        """Rename; something at ``to`` is a Conflict unless ``overwrite``."""
        request = encode_request(FrameType.FILE_MOVE_REQ, MoveRequest(path=path, to=to, overwrite=overwrite))
        await self._request(request, FrameType.FILE_MOVE_RESP, "moving a file")

    async def change_mode(self, path: str, mode: str, *, recursive: bool = False) -> None:
        """Set the mode, an octal text, with ``recursive`` of everything below too."""
        message = ChangeModeRequest(path=path, mode=mode, recursive=recursive)
        await self._request(
            encode_request(FrameType.FILE_CHMOD_REQ, message), FrameType.FILE_CHMOD_RESP, "changing a mode"
        )

    def read_tar(self, path: str) -> Download:
        """Give a directory or file as a tar archive; names in it are relative to ``path``."""
        request = encode_request(FrameType.TAR_READ_REQ, PathRequest(path=path))
        return Download(self._connector, request, FrameType.TAR_READ_RESP)

    async def write_tar(self, path: str, body: AsyncIterable[bytes], *, user: str | None = None) -> None:
        """Unpack a tar archive below the directory ``path``; its members become ``user``'s."""
        request = encode_request(FrameType.TAR_WRITE_REQ, TarWriteRequest(path=path, user=user))
        with await self._connector.open(request) as connection:
            await upload(connection, body, FrameType.TAR_WRITE_RESP, stall_s=self._connector.patience.stall_s)

    def watch(self, path: str, *, recursive: bool = False) -> Watch:
        """Give the changes of a file or directory; once the context is entered, no change is missed."""
        request = encode_request(FrameType.WATCH_REQ, WatchRequest(path=path, recursive=recursive))
        return Watch(self._connector, request)

    async def _request(self, request: bytes, reply: FrameType, what: str) -> None:
        async with Deadline(self._connector.patience.work_s, what):
            with await self._connector.open(request) as connection:
                await expect_ok(connection, reply)


class Watch:
    """Changes as they happen: iterate for WatchEvents, without end. Use it as ``async with``."""

    def __init__(self, connector: Connector, request: bytes) -> None:
        self._connector = connector
        self._request = request
        self._connection: Connection | None = None

    async def __aenter__(self) -> Self:
        async with Deadline(self._connector.patience.reply_s, "beginning to watch"):
            connection = await self._connector.open(self._request)
            try:
                await expect_ok(connection, FrameType.WATCH_RESP)
            except BaseException:
                connection.close()
                raise
        self._connection = connection
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._connection is not None:
            self._connection.close()

    def __aiter__(self) -> AsyncIterator[WatchEvent]:
        return self

    async def __anext__(self) -> WatchEvent:
        """Wait for the next change, for ever if need be.

        Raises:
            GuestFailed: the guest broke off.
        """
        if self._connection is None:
            raise RuntimeError("use the watch as 'async with'")
        return decode_reply(WatchEvent, (await self._connection.expect(FrameType.WATCH_EVENT)).payload)


def _listing(entries: list[FileInfo]) -> Listing:
    """Take the entry off that tells the total (its name holds a slash), and refuse names that would lead elsewhere."""
    total = len(entries)
    if entries and "/" in entries[-1].name:
        total = max(total - 1, entries[-1].size)
        entries = entries[:-1]
    for entry in entries:
        if "/" in entry.name or entry.name in ("", ".", ".."):
            raise GuestFailed("the guest broke the protocol", details=f"a file named {printable(entry.name)!r}")
    return Listing(entries=entries, total=total)
