"""Copies between here and sandboxes: what the words of ``hearth file cp`` name, and where a copy goes."""

from __future__ import annotations

import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO, cast

from hearth.cli.descriptors import STDOUT, write_all
from hearth.cli.progress import ProgressLine
from hearth.errors import InvalidInput, NotFound
from hearth.sdk.client import Client
from hearth.sdk.file_calls import PIECE_BYTES, Progress
from hearth.sdk.files import Files, Transferred

STDIO = "-"


@dataclass(frozen=True, kw_only=True)
class Place:
    """A path here (``-`` is standard input or output), or in ``sandbox``."""

    path: str
    sandbox: str | None = None

    def __str__(self) -> str:
        return self.path if self.sandbox is None else f"{self.sandbox}:{self.path}"

    @property
    def is_stdio(self) -> bool:
        return self.sandbox is None and self.path == STDIO


def read_place(text: str, *, what: str) -> Place:
    """Read ``SANDBOX:/path``, a path here (``./a:b`` where it holds a colon), or ``-``.

    Raises:
        InvalidInput: it names nothing, or a path in a sandbox that is not absolute.
    """
    sandbox, colon, path = text.partition(":")
    if not text:
        raise InvalidInput(f"invalid {what}", details="it is empty", resolution="name a path", field=what)
    if not colon or "/" in sandbox or not sandbox:
        return Place(path=text)
    if not path.startswith("/"):
        raise InvalidInput(
            f"invalid {what}",
            details=f"{path[:80]!r} is no absolute path in a sandbox",
            resolution=f"write it as {sandbox[:80]}:/path, or ./{text[:80]} for a file here",
            field=what,
        )
    return Place(path=path, sandbox=sandbox)


def copy(client: Client, source: Place, target: Place, *, recursive: bool, progress: Progress) -> Transferred:
    """Copy a file, or with ``recursive`` a directory.

    Raises:
        InvalidInput: both are here, a directory without ``recursive``, or one to where only a file can go.
    """
    if source.sandbox is None and target.sandbox is None:
        raise InvalidInput(
            "neither place is in a sandbox",
            details=f"{source} and {target}",
            resolution="write one as SANDBOX:/path; cp copies here",
            field="SOURCE",
        )
    if source.sandbox is None and target.sandbox is not None:
        return _copy_in(client.files(target.sandbox), source, target, recursive=recursive, progress=progress)
    files = client.files(source.sandbox or "")
    if files.stat(source.path).is_dir and (not recursive or target.sandbox is not None or target.is_stdio):
        raise _no_directory(source, recursive=recursive)
    if target.sandbox is not None:
        return _copy_across(files, source, client.files(target.sandbox), target)
    if target.is_stdio:
        return show_file(files, source.path)
    here = Path(target.path)
    if here.is_dir() or target.path.endswith("/"):
        here = here / PurePosixPath(source.path).name
    return files.download(source.path, here, progress=progress)


def show_file(files: Files, path: str) -> Transferred:
    """Write a file of a sandbox to standard output."""
    done = 0
    with files.open(path) as body:
        for piece in body:
            write_all(STDOUT, piece)
            done += len(piece)
    return Transferred(size_bytes=done)


def write_stdin(files: Files, path: str, *, mode: str | None, progress: Progress | None = None) -> Transferred:
    """Write standard input to a file of a sandbox; a pipe's length shows at its end, so it is kept on disk."""
    with tempfile.TemporaryFile() as kept:
        incoming: BinaryIO = sys.stdin.buffer
        if not stat.S_ISREG(os.fstat(incoming.fileno()).st_mode):
            shutil.copyfileobj(incoming, kept, PIECE_BYTES)
            kept.seek(0)
            incoming = cast(BinaryIO, kept)
        size = os.fstat(incoming.fileno()).st_size - incoming.tell()
        files.write_stream(path, _pieces(incoming, size, progress), size, mode=mode)
    return Transferred(size_bytes=size)


def _pieces(incoming: BinaryIO, size: int, progress: Progress | None) -> Iterator[bytes]:
    done = 0
    while piece := incoming.read(PIECE_BYTES):
        yield piece
        done += len(piece)
        if progress is not None:
            progress(done, size)


def _copy_in(files: Files, source: Place, target: Place, *, recursive: bool, progress: Progress) -> Transferred:
    if source.is_stdio:
        return write_stdin(files, target.path, mode=None, progress=progress)
    here = Path(source.path)
    if here.is_dir() and not recursive:
        raise _no_directory(source, recursive=recursive)
    here.stat()  # what is not here is told before anything travels
    path = target.path
    if path.endswith("/") or _is_directory(files, path):
        path = str(PurePosixPath(path) / here.resolve().name)
    return files.upload(here, path, progress=progress)


def _copy_across(files: Files, source: Place, others: Files, target: Place) -> Transferred:
    path = target.path
    if path.endswith("/") or _is_directory(others, path):
        path = str(PurePosixPath(path) / PurePosixPath(source.path).name)
    with files.open(source.path) as body:
        others.write_stream(path, body, body.size, mode=body.mode)
    return Transferred(size_bytes=body.size)


def _is_directory(files: Files, path: str) -> bool:
    try:
        return files.stat(path).is_dir
    except NotFound:
        return False


def _no_directory(source: Place, *, recursive: bool) -> InvalidInput:
    if not recursive:
        return InvalidInput(
            "this is a directory", details=str(source), resolution="say --recursive to copy all of it", field="SOURCE"
        )
    return InvalidInput(
        "a directory cannot be copied there",
        details=str(source),
        resolution="copy it to a directory here first",
        field="TARGET",
    )


def copy_shown(client: Client, source: Place, target: Place, *, recursive: bool) -> Transferred:
    """Copy, with a line that tells how far it is, and tell what was left out."""
    with ProgressLine(f"{source} → {target}") as line:
        copied = copy(client, source, target, recursive=recursive, progress=line.tell)
    for name in copied.skipped[:10]:
        sys.stderr.write(f"hearth: left out {name!a}: neither file, directory nor a symlink that stays inside\n")
    if len(copied.skipped) > 10:
        sys.stderr.write(f"hearth: left out {len(copied.skipped) - 10} more\n")
    return copied
