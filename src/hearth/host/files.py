"""Files that are either whole or absent: written aside, synced, renamed, and their directory synced too.

Blocking by nature: callers on an event loop wrap them in ``asyncio.to_thread``.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from hearth.errors import Conflict, NoSpace

TEMPORARY_SUFFIX = ".tmp"
"""Whatever ends so is unfinished work; nobody reads it and a sweep may remove it."""
OUT_OF_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})
HASH_CHUNK_BYTES = 1024 * 1024
REMOVE_ATTEMPTS = 5
"""A tool that is being killed may make one more file in a directory just emptied."""
MOUNTINFO = Path("/proc/self/mountinfo")
ESCAPED_OCTAL = re.compile(r"\\([0-7]{3})")


class Digest(Protocol):
    """A hash being computed."""

    def update(self, data: bytes, /) -> None: ...


def temporary_beside(path: Path) -> Path:
    """Give a name beside ``path`` that no other writer has, ending in ``.tmp``."""
    return path.with_name(f"{path.name}.{secrets.token_hex(6)}{TEMPORARY_SUFFIX}")


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_file(path: Path) -> None:
    """Make a file's bytes durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomic(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """Write a whole file or nothing: readers see the old bytes or the new ones, also after a power cut.

    Raises:
        NoSpace: the file system is full; nothing is left behind.
    """
    temporary = temporary_beside(path)
    try:
        with space_errors(path):
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
            with open(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
            sync_directory(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def new_file(path: Path, *, mode: int = 0o600) -> Iterator[int]:
    """Give a descriptor, for reading and writing, of a file that was not there; an error inside removes it again.

    Raises:
        FileExistsError: there is one.
        NoSpace: the file system is full.
    """
    with space_errors(path):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        try:
            yield descriptor
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        finally:
            os.close(descriptor)


@contextmanager
def opened(path: Path) -> Iterator[int]:
    """Give a descriptor for reading a file; a symlink is not followed."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def publish_file(temporary: Path, final: Path) -> None:
    """Give a finished file its final name in the same file system, durably; an existing one is replaced."""
    sync_file(temporary)
    temporary.replace(final)
    sync_directory(final.parent)


def publish_directory(staging: Path, final: Path) -> bool:
    """Give a finished directory its final name, durably; whole or not at all.

    Returns:
        False when ``final`` exists already: it stays as it is, and ``staging`` too.
    """
    for directory, _, names in os.walk(staging):
        for name in names:
            file = Path(directory, name)
            if not file.is_symlink():
                sync_file(file)
        sync_directory(Path(directory))
    try:
        staging.rename(final)
    except OSError as error:
        if error.errno in {errno.ENOTEMPTY, errno.EEXIST}:
            return False
        raise
    sync_directory(final.parent)
    return True


def hash_file(path: Path) -> str:
    """Give the SHA-256 of a file's bytes in hex, what ``sha256sum`` prints; holes are hashed without being read."""
    digest = hashlib.sha256()
    buffer = bytearray(HASH_CHUNK_BYTES)
    zeros = bytes(HASH_CHUNK_BYTES)
    with path.open("rb", buffering=0) as file:
        position = 0
        for start, end in data_ranges(file.fileno()):
            update_repeatedly(digest, zeros, start - position)
            file.seek(start)
            position = start
            while position < end and (count := file.readinto(memoryview(buffer)[: end - position])):
                digest.update(memoryview(buffer)[:count])
                position += count
        update_repeatedly(digest, zeros, os.fstat(file.fileno()).st_size - position)
    return digest.hexdigest()


def update_repeatedly(digest: Digest, block: bytes, size: int) -> None:
    """Hash ``size`` bytes of a block that is all alike."""
    for _ in range(size // len(block)):
        digest.update(block)
    digest.update(block[: size % len(block)])


def data_ranges(descriptor: int) -> Iterator[tuple[int, int]]:
    """Give the ranges of a file that are not holes; one range of all where the file system cannot tell (lseek(2))."""
    end = 0
    while True:
        try:
            start = os.lseek(descriptor, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            raise
        end = os.lseek(descriptor, start, os.SEEK_HOLE)
        yield start, end


def free_bytes(path: Path) -> int:
    """Give the bytes that are free in the file system of ``path``."""
    return shutil.disk_usage(path).free


def require_free(path: Path, size_bytes: int) -> None:
    """Refuse early what will not fit into the file system of ``path``.

    Raises:
        NoSpace: fewer than ``size_bytes`` are free there.
    """
    there_bytes = free_bytes(path)
    if there_bytes < size_bytes:
        raise NoSpace(
            "not enough free disk space",
            details=f"{path} has {there_bytes} bytes free, {size_bytes} are needed",
            resolution="free some space, or choose another HEARTH_DATA",
        )


@contextmanager
def space_errors(path: Path) -> Iterator[None]:
    """Turn the operating system's "no space left" into NoSpace naming ``path``."""
    try:
        yield
    except OSError as error:
        if error.errno not in OUT_OF_SPACE:
            raise
        raise NoSpace(
            "the disk is full",
            details=f"{path}: {os.strerror(error.errno)}",
            resolution="free some space, or choose another HEARTH_DATA",
        ) from error


def mounts_below(path: Path) -> list[Path]:
    """List the mount points at and below ``path`` as this process sees them, deepest first."""
    root = path.resolve()
    found = []
    for line in MOUNTINFO.read_text("utf-8", "surrogateescape").splitlines():
        # Field 5 is the mount point, blanks and backslashes in octal: proc(5).
        escaped = line.split(" ")[4]
        point = Path(ESCAPED_OCTAL.sub(lambda match: chr(int(match[1], 8)), escaped))
        if point.is_relative_to(root):
            found.append(point)
    return sorted(found, key=lambda point: len(point.parts), reverse=True)


def remove_tree(path: Path) -> None:
    """Remove a file or directory tree; one that is not there is fine.

    Raises:
        Conflict: something is mounted inside; deleting would reach through the mount into somebody's files.
    """
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
        return
    if mounted := mounts_below(path):
        raise Conflict(
            "cannot remove a directory with mounts inside",
            details=f"mounted: {', '.join(str(point) for point in mounted)}",
            resolution="unmount them and try again",
        )
    for attempts_left in reversed(range(REMOVE_ATTEMPTS)):
        try:
            shutil.rmtree(path)
        except OSError as error:
            if error.errno != errno.ENOTEMPTY or not attempts_left:
                raise
        else:
            return
