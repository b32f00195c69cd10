"""Files of this host on their way to and from a sandbox: read in pieces, written beside their place and renamed."""

from __future__ import annotations

import contextlib
import os
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from hearth.errors import Conflict
from hearth.sdk.file_calls import PIECE_BYTES

BLOCK_BYTES = tarfile.BLOCKSIZE
END_OF_ARCHIVE = bytes(2 * BLOCK_BYTES)


def pieces_of(path: Path) -> Iterator[bytes]:
    """Give a file's content."""
    with path.open("rb") as file:
        while piece := file.read(PIECE_BYTES):
            yield piece


def tar_of(root: Path, skipped: list[str]) -> Iterator[bytes]:
    """Give a directory as a tar archive, names relative to it, in pieces; what is no file, directory or symlink is
    left out, and told in ``skipped``.

    Raises:
        Conflict: a file became shorter on the way.
    """
    waiting = bytearray()
    for path, info in _entries(root, root, skipped):
        waiting += info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
        if info.isreg():
            for piece in _content(path, info.size):
                waiting += piece
                if len(waiting) >= PIECE_BYTES:
                    yield bytes(waiting)
                    waiting.clear()
            waiting += bytes(-info.size % BLOCK_BYTES)
        if len(waiting) >= PIECE_BYTES:
            yield bytes(waiting)
            waiting.clear()
    yield bytes(waiting) + END_OF_ARCHIVE


def _entries(root: Path, directory: Path, skipped: list[str]) -> Iterator[tuple[Path, tarfile.TarInfo]]:
    with os.scandir(directory) as scan:
        found = sorted(scan, key=lambda entry: entry.name)
    for entry in found:
        path = Path(entry.path)
        facts = entry.stat(follow_symlinks=False)
        info = tarfile.TarInfo(str(path.relative_to(root)))
        info.mode, info.mtime = stat.S_IMODE(facts.st_mode), int(facts.st_mtime)
        if stat.S_ISDIR(facts.st_mode):
            info.type = tarfile.DIRTYPE
            yield path, info
            yield from _entries(root, path, skipped)
        elif stat.S_ISLNK(facts.st_mode):
            info.type, info.linkname = tarfile.SYMTYPE, str(path.readlink())
            yield path, info
        elif stat.S_ISREG(facts.st_mode):
            info.size = facts.st_size
            yield path, info
        else:
            skipped.append(info.name)


def _content(path: Path, size: int) -> Iterator[bytes]:
    """Give exactly so many bytes of a file, whatever grows at its end."""
    with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
        left = size
        while left:
            piece = file.read(min(left, PIECE_BYTES))
            if not piece:
                raise Conflict(
                    "a file became shorter while it was read", details=str(path), resolution="try again when it rests"
                )
            left -= len(piece)
            yield piece


class NewFile:
    """A file that is there as a whole, once ``commit`` is called, or not at all."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._beside = path.with_name(f".{path.name[:200]}.{os.urandom(6).hex()}.part")
        self._descriptor = -1

    def __enter__(self) -> Self:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        self._descriptor = os.open(self._beside, flags, 0o600)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._descriptor)
        with contextlib.suppress(FileNotFoundError):
            self._beside.unlink()

    def write(self, piece: bytes) -> None:
        """Write all of it."""
        view = memoryview(piece)
        while view:
            view = view[os.write(self._descriptor, view) :]

    def commit(self, mode: int) -> None:
        """Put it in its place with these permissions; none that let it run as somebody else."""
        os.fchmod(self._descriptor, mode & 0o777)
        self._beside.replace(self._path)
