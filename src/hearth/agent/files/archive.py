"""Trees as tar archives: the members of a tree, and members put in place without ever leaving the top directory.

``tarfile`` reads and writes the format; names of owners and the file system are ours, as ``tarfile`` would ask libc's
name service for the one and follow links in the other.
"""

from __future__ import annotations

import errno
import os
import stat
import tarfile
from collections.abc import Iterator

from hearth.agent.refusal import refused
from hearth.wire.faults import Fault
from hearth.wire.runtime_typing import IO, Any, Protocol, cast

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_PIECE_BYTES = 256 * 1024
_MAX_HEADER_BYTES = 1024 * 1024


class ByteTarget(Protocol):
    """Where an archive goes, piece by piece."""

    def write(self, data: bytes, /) -> int: ...


class ByteSource(Protocol):
    """Where an archive comes from; an empty piece is its end."""

    def read(self, size: int, /) -> bytes: ...


def write_archive(path: str, target: ByteTarget) -> None:
    """Write the tree at ``path``, a directory or one file, as a pax archive with names relative to it.

    Sockets are left out, and so is what vanishes meanwhile. A file that shrinks is filled up with zeros.

    Raises:
        OSError: the top is not there, or something may not be read.
    """
    with tarfile.open(
        fileobj=cast(IO[bytes], target), mode="w|", bufsize=_PIECE_BYTES, format=tarfile.PAX_FORMAT, encoding="utf-8"
    ) as archive:
        status = os.stat(path)
        if not stat.S_ISDIR(status.st_mode):
            _add(archive, path, os.path.basename(path), status, {})
            return
        links: dict[tuple[int, int], str] = {}
        for name in _walk(path, ""):
            try:
                status = os.lstat(os.path.join(path, name))
                _add(archive, os.path.join(path, name), name, status, links)
            except FileNotFoundError:
                continue


def read_archive(source: ByteSource, top: int, owner: tuple[int, int] | None) -> None:
    """Unpack an archive below the directory ``top``, a descriptor. What is there already is replaced.

    Args:
        owner: whose the members become, as whoever packed the archive was somebody on another system; None for ours.

    Raises:
        Refused: a member would land outside, or the archive is broken.
        OSError: something may not be written.
    """
    try:
        with tarfile.TarFile(fileobj=cast(IO[bytes], _Forward(source))) as archive:
            modes: list[tuple[tuple[str, ...], int]] = []
            for member in archive:
                cast(Any, archive).members = []  # a stream is not looked back at
                parts = _inside(member.name)
                _place(archive, member, parts, top, owner)
                if member.isdir():
                    modes.append((parts, member.mode & 0o7777))
            for parts, mode in reversed(modes):  # only now, as a directory may forbid its owner to write
                _set_mode(top, parts, mode)
    except tarfile.TarError as error:
        raise refused(Fault.INVALID, f"not a tar archive: {error}") from error


def _walk(top: str, below: str) -> Iterator[str]:
    try:
        entries = sorted(os.scandir(os.path.join(top, below)), key=lambda found: found.name)
    except FileNotFoundError:
        return
    for entry in entries:
        name = os.path.join(below, entry.name)
        yield name
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(top, name)


def _add(
    archive: tarfile.TarFile, path: str, name: str, status: os.stat_result, links: dict[tuple[int, int], str]
) -> None:
    member = tarfile.TarInfo(name)
    member.mode = stat.S_IMODE(status.st_mode)
    member.uid, member.gid, member.mtime = status.st_uid, status.st_gid, int(status.st_mtime)
    if stat.S_ISREG(status.st_mode):
        key = status.st_dev, status.st_ino
        if status.st_nlink > 1 and key in links:
            member.type, member.linkname = tarfile.LNKTYPE, links[key]
        else:
            links[key] = name
            _add_content(archive, path, member)
            return
    elif stat.S_ISDIR(status.st_mode):
        member.type = tarfile.DIRTYPE
    elif stat.S_ISLNK(status.st_mode):
        member.type, member.linkname = tarfile.SYMTYPE, os.readlink(path)
    elif stat.S_ISFIFO(status.st_mode):
        member.type = tarfile.FIFOTYPE
    elif stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode):
        member.type = tarfile.CHRTYPE if stat.S_ISCHR(status.st_mode) else tarfile.BLKTYPE
        member.devmajor, member.devminor = os.major(status.st_rdev), os.minor(status.st_rdev)
    else:
        return
    archive.addfile(member)


def _add_content(archive: tarfile.TarFile, path: str, member: tarfile.TarInfo) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    with open(descriptor, "rb", buffering=0) as file:
        member.size = os.fstat(descriptor).st_size
        archive.addfile(member, _Padded(file))  # type: ignore[arg-type]


class _Forward:
    """A stream as a file that is read forwards, and never gives more at once than a header may be long.

    tarfile reads a member's own header data (long names, pax records) in one piece, of whatever size it claims.
    """

    def __init__(self, source: ByteSource) -> None:
        self._source = source
        self._piece = memoryview(b"")
        self._at = 0

    def tell(self) -> int:
        return self._at

    def seek(self, position: int) -> int:
        """Skip to a later position, or to the end if that comes first."""
        if position < self._at:
            raise tarfile.StreamError(f"cannot go back from {self._at} to {position}")
        while self._at < position and self.read(min(position - self._at, _PIECE_BYTES)):
            continue
        return self._at

    def read(self, size: int) -> bytes:
        """Give ``size`` bytes, fewer only at the end."""
        if not 0 <= size <= _MAX_HEADER_BYTES:
            raise tarfile.ReadError(f"a header of {size} bytes")
        pieces = []
        while size and (self._piece or self._fill()):
            pieces.append(self._piece[:size])
            self._piece = self._piece[size:]
            size -= len(pieces[-1])
            self._at += len(pieces[-1])
        return b"".join(pieces)

    def _fill(self) -> bool:
        self._piece = memoryview(self._source.read(_PIECE_BYTES))
        return bool(self._piece)


class _Padded:
    """A file that never ends early, as the size in the header is a promise."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def read(self, size: int) -> bytes:
        data = b""
        while len(data) < size and (piece := self._file.read(size - len(data))):
            data += piece
        return data.ljust(size, b"\0")


def _inside(name: str) -> tuple[str, ...]:
    """Split a member's name.

    Raises:
        Refused: it is absolute or climbs.
    """
    parts = tuple(part for part in name.split("/") if part not in ("", "."))
    if name.startswith("/") or ".." in parts:
        raise refused(Fault.INVALID, f"member {name[:200]!r} lies outside the directory")
    return parts


def _place(
    archive: tarfile.TarFile,
    member: tarfile.TarInfo,
    parts: tuple[str, ...],
    top: int,
    owner: tuple[int, int] | None,
) -> None:
    if not parts:
        return
    directory = _open_directories(top, parts[:-1], owner)
    name = parts[-1]
    try:
        if member.isdir():
            _make_directory(directory, name, owner)
        else:
            _clear(directory, name)
            if member.isreg():
                _write_content(archive, member, directory, name)
            elif member.issym():
                os.symlink(member.linkname, name, dir_fd=directory)
            elif member.islnk():
                _link(top, _inside(member.linkname), directory, name)
                return
            elif member.isfifo():
                os.mkfifo(name, member.mode & 0o777, dir_fd=directory)
            else:
                kind = stat.S_IFCHR if member.ischr() else stat.S_IFBLK
                device = os.makedev(member.devmajor, member.devminor)
                os.mknod(name, kind | member.mode & 0o777, device, dir_fd=directory)
        if owner is not None:
            os.chown(name, *owner, dir_fd=directory, follow_symlinks=False)
        if member.isreg():
            os.chmod(name, member.mode & 0o7777, dir_fd=directory)
            os.utime(name, (member.mtime, member.mtime), dir_fd=directory, follow_symlinks=False)
    finally:
        os.close(directory)


def _open_directories(top: int, parts: tuple[str, ...], owner: tuple[int, int] | None = None) -> int:
    """Open a directory below ``top``, making what is missing; a symlink on the way is refused.

    Raises:
        Refused: a part of the way is a link.
        OSError: a part of the way is a file.
    """
    current = os.dup(top)
    for part in parts:
        try:
            _make_directory(current, part, owner)
            below = os.open(part, _DIRECTORY, dir_fd=current)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENOTDIR) and _is_link(current, part):
                raise refused(Fault.INVALID, f"the way to a member leads through the link {part!r}") from error
            raise
        finally:
            os.close(current)
        current = below
    return current


def _make_directory(directory: int, name: str, owner: tuple[int, int] | None) -> None:
    try:
        os.mkdir(name, 0o755, dir_fd=directory)
        if owner is not None:
            os.chown(name, *owner, dir_fd=directory, follow_symlinks=False)
    except FileExistsError:
        if not stat.S_ISDIR(os.lstat(name, dir_fd=directory).st_mode) and not _is_link(directory, name):
            raise


def _is_link(directory: int, name: str) -> bool:
    return stat.S_ISLNK(os.lstat(name, dir_fd=directory).st_mode)


def _clear(directory: int, name: str) -> None:
    """Make room for a member; a directory stays and fails what follows."""
    try:
        os.unlink(name, dir_fd=directory)
    except FileNotFoundError:
        return


def _write_content(archive: tarfile.TarFile, member: tarfile.TarInfo, directory: int, name: str) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(name, flags, 0o600, dir_fd=directory)
    try:
        content = archive.extractfile(member)
        while content is not None and (data := content.read(_PIECE_BYTES)):
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]
    finally:
        os.close(descriptor)


def _link(top: int, target: tuple[str, ...], directory: int, name: str) -> None:
    source = _open_directories(top, target[:-1])
    try:
        os.link(target[-1], name, src_dir_fd=source, dst_dir_fd=directory, follow_symlinks=False)
    finally:
        os.close(source)


def _set_mode(top: int, parts: tuple[str, ...], mode: int) -> None:
    descriptor = _open_directories(top, parts)
    try:
        os.fchmod(descriptor, mode)
    finally:
        os.close(descriptor)
