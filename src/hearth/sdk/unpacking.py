"""An archive from a sandbox, unpacked here. The sandbox is not trusted: nothing is written outside the directory,
through a symlink or as a device, and no symlink that is made leads out of it."""

from __future__ import annotations

import contextlib
import os
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from hearth.errors import Conflict, GuestFailed
from hearth.sdk.file_calls import PIECE_BYTES

MAX_EXTENSION_BYTES = 1_048_576
"""Of a header that goes with a file: long names and the like, which are held in memory."""
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
EXTENSIONS = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)


@dataclass(kw_only=True)
class Unpacked:
    """What came of an archive; ``skipped`` are the names of devices, sockets and symlinks that lead outside."""

    files: int = 0
    skipped: list[str] = field(default_factory=list)


class _BoundedInfo(tarfile.TarInfo):
    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        info = super().frombuf(buf, encoding, errors)
        if info.type in EXTENSIONS and info.size > MAX_EXTENSION_BYTES:
            raise tarfile.ReadError(f"a header of {info.size} bytes")
        return info


class Unpacker:
    """Unpacks what it is fed below a directory, in a thread of its own."""

    def __init__(self, root: Path) -> None:
        self.unpacked = Unpacked()
        self._root = root
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="unpacking", daemon=True)

    def __enter__(self) -> Self:
        self._root.mkdir(parents=True, exist_ok=True)
        self._incoming, self._outgoing = os.pipe()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def feed(self, piece: bytes) -> None:
        """Take a piece of the archive.

        Raises:
            GuestFailed: it is none, or it leads outside.
            Conflict, OSError: what it holds cannot be written here.
        """
        view = memoryview(piece)
        try:
            while view:
                view = view[os.write(self._outgoing, view) :]
        except BrokenPipeError:
            self.finish()

    def finish(self) -> Unpacked:
        """Wait until all is written. Raises as ``feed``."""
        self._end()
        if self._error is not None:
            raise self._error
        return self.unpacked

    def _end(self) -> None:
        if self._outgoing >= 0:
            os.close(self._outgoing)
            self._outgoing = -1
        self._thread.join()

    def _run(self) -> None:
        try:
            with open(self._incoming, "rb") as pipe:
                options = {"tarinfo": _BoundedInfo, "encoding": "utf-8", "errors": "surrogateescape"}
                with tarfile.open(fileobj=pipe, mode="r|", **options) as archive:  # type: ignore[call-overload]
                    _Tree(self._root, self.unpacked).take(archive)
                while pipe.read(PIECE_BYTES):
                    pass  # what pads the archive at its end
        except tarfile.TarError as error:
            self._error = GuestFailed("what the sandbox sent is no archive", details=str(error))
            self._error.__cause__ = error
        except Exception as error:  # noqa: BLE001 - it is raised where the archive is fed
            self._error = error


class _Tree:
    """A directory here that an archive's members are put into, each way down it walked without following symlinks."""

    def __init__(self, root: Path, unpacked: Unpacked) -> None:
        self._root = root
        self._unpacked = unpacked
        self._links: list[tuple[list[str], str]] = []
        self._modes: list[tuple[list[str], int]] = []

    def take(self, archive: tarfile.TarFile) -> None:
        for member in archive:
            parts = _parts_of(member.name)
            if member.isdir():
                with self._within(parts):
                    self._modes.append((parts, member.mode))
            elif not parts:
                raise GuestFailed("what the sandbox sent leads outside", details=f"a file named {member.name[:200]!r}")
            elif member.isreg() and not member.issparse():
                content = archive.extractfile(member)
                if content is None:
                    raise AssertionError("a regular file has content")
                self._write(parts, content, member)
            elif member.islnk():
                self._link(parts, _parts_of(member.linkname))
            elif member.issym() and _stays_inside(parts, member.linkname):
                self._links.append((parts, member.linkname))
            else:
                self._unpacked.skipped.append(member.name)
        # Symlinks last: nothing is written through them. Modes after that: a directory may be read-only.
        for parts, target in self._links:
            with self._within(parts[:-1]) as directory:
                _unlink(parts, directory)
                os.symlink(target, parts[-1], dir_fd=directory)
        for parts, mode in reversed(self._modes):
            with self._within(parts) as directory:
                os.fchmod(directory, mode & 0o777 | 0o700)

    def _write(self, parts: list[str], content: IO[bytes], member: tarfile.TarInfo) -> None:
        with self._within(parts[:-1]) as directory:
            _unlink(parts, directory)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            with open(os.open(parts[-1], flags, 0o600, dir_fd=directory), "wb") as file:
                while piece := content.read(PIECE_BYTES):
                    file.write(piece)
                file.flush()
                os.fchmod(file.fileno(), member.mode & 0o777)
                os.utime(file.fileno(), (member.mtime, member.mtime))
        self._unpacked.files += 1

    def _link(self, parts: list[str], target: list[str]) -> None:
        with self._within(parts[:-1]) as directory, self._within(target[:-1]) as source:
            _unlink(parts, directory)
            os.link(target[-1], parts[-1], src_dir_fd=source, dst_dir_fd=directory, follow_symlinks=False)
        self._unpacked.files += 1

    @contextlib.contextmanager
    def _within(self, parts: list[str]) -> Iterator[int]:
        current = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for part in parts:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(part, 0o700, dir_fd=current)
                try:
                    following = os.open(part, DIRECTORY, dir_fd=current)
                except NotADirectoryError as error:
                    raise Conflict(
                        "a directory cannot be written",
                        details=f"{self._root.joinpath(*parts)}: {part!r} is no directory here",
                        resolution="choose another place",
                    ) from error
                os.close(current)
                current = following
            yield current
        finally:
            os.close(current)


def _parts_of(name: str) -> list[str]:
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if name.startswith("/") or ".." in parts:
        raise GuestFailed("what the sandbox sent leads outside", details=f"a file named {name[:200]!r}")
    return parts


def _stays_inside(parts: list[str], target: str) -> bool:
    """Tell whether a symlink leads to where the archive is unpacked: up first, if at all, then down."""
    steps = [step for step in target.split("/") if step not in ("", ".")]
    ups = next((index for index, step in enumerate(steps) if step != ".."), len(steps))
    return not target.startswith("/") and ups < len(parts) and ".." not in steps[ups:]


def _unlink(parts: list[str], directory: int) -> None:
    """Make room for a file."""
    try:
        os.unlink(parts[-1], dir_fd=directory)
    except FileNotFoundError:
        pass
    except (IsADirectoryError, PermissionError) as error:
        raise Conflict(
            "a directory is in the way", details="/".join(parts), resolution="choose another place"
        ) from error
