"""The operations on files of a sandbox as values, and how their answers are read; the rest is in ``calls``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from hearth.api.file_operations import READ_FILE, REMOVE_FILE, STAT_FILE, WRITE_FILE
from hearth.api.file_schemas import FileAt, FileList, ReadFile, RemoveFile, WriteFile
from hearth.api.limits import BYTES, FILE_IS_DIR_HEADER, FILE_MODE_HEADER, FILE_SIZE_HEADER, TAR
from hearth.api.schemas import Nothing
from hearth.errors import InvalidInput, Unavailable
from hearth.sdk.call import LONG_S, Call, call_of, checked
from hearth.sdk.http1 import HttpRequest

PIECE_BYTES = 262_144
"""What is held of a file on its way."""
Progress = Callable[[int, int | None], None]
"""Told how many bytes have gone by, and of how many; None where that is not known."""


@dataclass(frozen=True, kw_only=True)
class FileStat:
    """What a path leads to: size in bytes, mode as 4 octal digits."""

    size: int
    mode: str
    is_dir: bool


def read(ref: str, path: str, *, start: int | None = None, length: int | None = None) -> HttpRequest:
    """Ask for a file's bytes, all of them or ``length`` from byte ``start`` on.

    Raises:
        InvalidInput: the path is not absolute, or there are no such bytes.
    """
    request = _reading(ref, checked(ReadFile, {"path": path}), accept=BYTES)
    if start is None and length is None:
        return request
    first = start or 0
    if first < 0 or (length is not None and length < 1):
        raise InvalidInput(
            "invalid range",
            details=f"{length} bytes from {first} on",
            resolution="start at 0 or later, take 1 byte or more",
            field="start" if first < 0 else "length",
        )
    last = "" if length is None else str(first + length - 1)
    return replace(request, byte_range=f"bytes={first}-{last}")


def read_lines(ref: str, path: str, *, offset: int, limit: int | None, max_bytes: int | None) -> HttpRequest:
    wanted = {"path": path, "offset": offset, "limit": limit, "max_bytes": max_bytes}
    return _reading(ref, checked(ReadFile, wanted), accept=BYTES)


def read_tar(ref: str, path: str) -> HttpRequest:
    return _reading(ref, checked(ReadFile, {"path": path}), accept=TAR)


def listing(ref: str, path: str) -> Call[FileList]:
    return call_of(READ_FILE, checked(ReadFile, {"path": path, "ls": True}), ref=ref, timeout_s=LONG_S)


def stat(ref: str, path: str) -> Call[Nothing]:
    return call_of(STAT_FILE, checked(FileAt, {"path": path}), ref=ref, timeout_s=LONG_S)


def remove(ref: str, path: str, *, recursive: bool) -> Call[Nothing]:
    return call_of(REMOVE_FILE, checked(RemoveFile, {"path": path, "recursive": recursive}), ref=ref, timeout_s=LONG_S)


def write(ref: str, path: str, data: bytes, mode: str | int | None) -> HttpRequest:
    return replace(_writing(ref, path, mode, BYTES), body=data)


def write_stream(ref: str, path: str, size: int, mode: str | int | None) -> HttpRequest:
    """Ask to write a file of ``size`` bytes, whose pieces follow."""
    return replace(_writing(ref, path, mode, BYTES), streamed=True, length=size)


def write_tar(ref: str, path: str) -> HttpRequest:
    """Ask to unpack an archive, whose pieces follow, below a directory."""
    return replace(_writing(ref, path, None, TAR), streamed=True)


def stat_of(headers: Mapping[str, str]) -> FileStat:
    """Read an answer's headers.

    Raises:
        Unavailable: what answered is no hearth daemon.
    """
    try:
        return FileStat(
            size=int(headers[FILE_SIZE_HEADER.lower()]),
            mode=headers[FILE_MODE_HEADER.lower()],
            is_dir=headers.get(FILE_IS_DIR_HEADER.lower()) == "true",
        )
    except (KeyError, ValueError) as error:
        raise Unavailable(
            "what answered is not a hearth daemon", details="it tells nothing of a file", resolution="check HEARTH_URL"
        ) from error


def _reading(ref: str, wanted: ReadFile, *, accept: str) -> HttpRequest:
    return call_of(READ_FILE, wanted, ref=ref, timeout_s=LONG_S, accept=accept).request


def _writing(ref: str, path: str, mode: str | int | None, content_type: str) -> HttpRequest:
    octal = f"{mode:04o}" if isinstance(mode, int) else mode
    wanted = checked(WriteFile, {"path": path, "mode": octal})
    return replace(call_of(WRITE_FILE, wanted, ref=ref, timeout_s=LONG_S).request, content_type=content_type)
