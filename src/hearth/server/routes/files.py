"""/api/v1/sandboxes/{ref}/files: read, list, look at, write and remove what is in a sandbox."""

from __future__ import annotations

import base64
import contextlib
import functools
import posixpath
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl

from starlette.responses import Response
from starlette.types import ASGIApp

from hearth.api.file_operations import READ_FILE, REMOVE_FILE, STAT_FILE, WRITE_FILE
from hearth.api.file_schemas import FileAt, FileList, FileView, ReadFile, RemoveFile, WriteFile
from hearth.api.limits import BYTES, FILE_IS_DIR_HEADER, FILE_MODE_HEADER, FILE_SIZE_HEADER, TAR
from hearth.api.schemas import Nothing
from hearth.errors import GuestFailed, InvalidInput
from hearth.guest.client import Guest
from hearth.guest.transfer import FileDownload
from hearth.server.downloads import Header, Opened, Outgoing
from hearth.server.ranges import ByteRange, read_range
from hearth.server.resource import Call, bind
from hearth.server.uploads import announced_size, incoming
from hearth.wire.messages import FileInfo

_MODE = re.compile("[0-7]{4}")
_FIRST_S, _LAST_S = -62_135_596_800, 253_402_300_799
"""The years 1 to 9999."""
_MAX_SIZE = 2**63 - 1


async def read(call: Call[ReadFile]) -> FileList | ASGIApp:
    wanted, path = call.input, path_of(call)
    lines = (wanted.offset, wanted.limit, wanted.max_bytes) != (None, None, None)
    packs = TAR in call.request.headers.get("accept", "")
    if sum((lines, packs, wanted.ls)) > 1:
        raise InvalidInput(
            "that does not go together",
            details="it asks for more than one of a list (ls), lines (offset, limit, max_bytes) and an archive",
            resolution="ask for one of them at a time",
            field="ls" if wanted.ls else "offset",
        )
    if wanted.ls:
        return await _list(call, path)
    if packs:
        return Outgoing(functools.partial(_packed, call, path))
    if lines:
        return Outgoing(functools.partial(_lines, call, path))
    header = None if "if-range" in call.request.headers else call.request.headers.get("range")
    return Outgoing(functools.partial(_bytes, call, path, read_range(header)))


async def _list(call: Call[Any], path: str) -> FileList:
    async with call.daemon.sandboxes.awake(call.user, call.ref) as guest:
        listing = await guest.files.list(path)
    return FileList(items=[_view(entry) for entry in listing.entries], total=min(max(listing.total, 0), _MAX_SIZE))


@contextlib.asynccontextmanager
async def _packed(call: Call[Any], path: str) -> AsyncIterator[Opened]:
    async with call.daemon.sandboxes.awake(call.user, call.ref) as guest, guest.files.read_tar(path) as download:
        yield Opened(download=download, media_type=TAR)


@contextlib.asynccontextmanager
async def _lines(call: Call[ReadFile], path: str) -> AsyncIterator[Opened]:
    wanted = call.input
    async with (
        call.daemon.sandboxes.awake(call.user, call.ref) as guest,
        guest.files.read_lines(path, offset=wanted.offset, limit=wanted.limit, max_bytes=wanted.max_bytes) as download,
    ):
        yield Opened(download=download, media_type=BYTES, headers=_about(download))


@contextlib.asynccontextmanager
async def _bytes(call: Call[Any], path: str, wanted: ByteRange | None) -> AsyncIterator[Opened]:
    async with (
        call.daemon.sandboxes.awake(call.user, call.ref) as guest,
        await _download(guest, path, wanted) as download,
    ):
        size, headers = download.size, [*_about(download), (b"accept-ranges", b"bytes")]
        if wanted is None:  # /proc says that its files are empty
            yield Opened(download=download, media_type=BYTES, headers=headers, length=size or None)
            return
        start, count = wanted.within(size)
        headers.append((b"content-range", b"bytes %d-%d/%d" % (start, start + count - 1, size)))
        yield Opened(download=download, media_type=BYTES, headers=headers, length=count, status=206)


async def _download(guest: Guest, path: str, wanted: ByteRange | None) -> FileDownload:
    if wanted is None:
        return guest.files.read(path)
    if wanted.start is None:  # the last so many: of how many must be asked first
        start, count = wanted.within(_checked(await guest.files.stat(path)).size)
        return guest.files.read_range(path, start=start, length=count)
    length = None if wanted.end is None else wanted.end - wanted.start + 1
    return guest.files.read_range(path, start=wanted.start, length=length)


async def stat(call: Call[FileAt]) -> ASGIApp:
    path = path_of(call)
    async with call.daemon.sandboxes.awake(call.user, call.ref) as guest:
        info = _checked(await guest.files.stat(path))
    headers = {
        FILE_SIZE_HEADER: str(info.size),
        FILE_MODE_HEADER: info.mode,
        FILE_IS_DIR_HEADER: "true" if info.is_dir else "false",
    }
    if not info.is_dir and info.size:
        headers |= {"Content-Length": str(info.size), "Accept-Ranges": "bytes"}
    return Response(headers=headers, media_type=BYTES)


async def write(call: Call[WriteFile]) -> Nothing:
    path, body = path_of(call), incoming(call.request.receive)
    call.request.state.made = (_shown(path),)
    if _media_type(call) == TAR:
        if call.input.mode is not None:
            raise InvalidInput(
                "invalid mode",
                details="an archive's members have modes of their own",
                resolution="leave it out",
                field="mode",
            )
        async with call.daemon.sandboxes.awake(call.user, call.ref) as guest:
            await guest.files.write_tar(path, body, user=call.input.user)
        return Nothing()
    size = announced_size(call.request.headers.get("content-length"))
    async with call.daemon.sandboxes.awake(call.user, call.ref) as guest:
        await guest.files.write(path, body, size=size, mode=call.input.mode, user=call.input.user)
    return Nothing()


async def remove(call: Call[RemoveFile]) -> Nothing:
    path = path_of(call)
    call.request.state.made = (_shown(path),)
    if posixpath.normpath(path).lstrip("/") == "":
        raise InvalidInput(
            "the root directory cannot be removed",
            details="a sandbox is nothing without it",
            resolution="remove what is in it, or destroy the sandbox",
            field="path",
        )
    async with call.daemon.sandboxes.awake(call.user, call.ref) as guest:
        await guest.files.remove(path, recursive=call.input.recursive)
    return Nothing()


def path_of(call: Call[Any]) -> str:
    """Give the path of a query as the guest is told it: bytes that are not UTF-8 are surrogate escapes."""
    query = call.request.scope["query_string"].decode("latin-1")
    values: dict[str, str] = dict(parse_qsl(query, keep_blank_values=True, errors="surrogateescape"))
    return values["path"]


def _media_type(call: Call[Any]) -> str:
    value: str = call.request.headers.get("content-type", "")
    return value.partition(";")[0].strip().lower()


def _about(download: FileDownload) -> list[Header]:
    _check(download.size, download.mode)
    return [
        (FILE_SIZE_HEADER.lower().encode(), str(download.size).encode()),
        (FILE_MODE_HEADER.lower().encode(), download.mode.encode()),
    ]


def _view(entry: FileInfo) -> FileView:
    _checked(entry)
    name = _shown(entry.name)
    return FileView(
        name=name,
        size=entry.size,
        mode=entry.mode,
        is_dir=entry.is_dir,
        modified_at=datetime.fromtimestamp(min(max(entry.mtime, _FIRST_S), _LAST_S), UTC),
        name_base64=None if name == entry.name else base64.b64encode(_raw(entry.name)).decode("ascii"),
    )


def _shown(text: str) -> str:
    """Give a path for JSON: what is no UTF-8 becomes U+FFFD."""
    return _raw(text).decode("utf-8", "replace")


def _raw(text: str) -> bytes:
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise GuestFailed("the guest broke the protocol", details="a name that no file can have") from error


def _checked(info: FileInfo) -> FileInfo:
    _check(info.size, info.mode)
    return info


def _check(size: int, mode: str) -> None:
    """See that what a guest says can stand in a header. Raises GuestFailed."""
    if not 0 <= size <= _MAX_SIZE or not _MODE.fullmatch(mode):
        raise GuestFailed("the guest broke the protocol", details=f"a file of {size} bytes and mode {mode[:20]!r}")


BOUND = (
    bind(READ_FILE, read),
    bind(STAT_FILE, stat),
    bind(WRITE_FILE, write),
    bind(REMOVE_FILE, remove),
)
