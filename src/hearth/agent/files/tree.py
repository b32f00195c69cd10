"""Whole trees: remove, change modes, copy to another file system. Never follows a symlink below the top."""

from __future__ import annotations

import contextlib
import errno
import os
import stat

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_COPY_BYTES = 1024 * 1024


def remove(path: str, *, recursive: bool) -> None:
    """Remove a file, a symlink itself, an empty directory, or with ``recursive`` all of a tree.

    Raises:
        OSError: it is not there, not empty, or not ours to remove.
    """
    if not stat.S_ISDIR(os.lstat(path).st_mode):
        os.unlink(path)
        return
    if recursive:
        _empty(os.open(path, _DIRECTORY))
    os.rmdir(path)


def change_mode(path: str, mode: int, *, recursive: bool) -> None:
    """Set the mode of a file, with ``recursive`` of all below it; symlinks below are left alone.

    Raises:
        OSError: it is not there, or not ours.
    """
    if recursive and stat.S_ISDIR(os.stat(path).st_mode):
        for directory, _, files, descriptor in os.fwalk(path, topdown=False):
            for name in files:
                if not stat.S_ISLNK(os.lstat(name, dir_fd=descriptor).st_mode):
                    os.chmod(name, mode, dir_fd=descriptor)
            if directory != path:
                os.fchmod(descriptor, mode)
    os.chmod(path, mode)


def move(path: str, to: str, *, overwrite: bool) -> None:
    """Rename, across file systems by copy and removal; what was at ``to`` is replaced only with ``overwrite``.

    Raises:
        OSError: there is something at ``to``, or the system refuses.
    """
    if overwrite:
        if os.path.isdir(to) and not os.path.islink(to):
            remove(to, recursive=True)
    elif os.path.lexists(to):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), to)
    try:
        os.rename(path, to)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        _move_across(path, to)


def _empty(directory: int) -> None:
    """Remove everything in a directory, by descriptors: no name is ever looked up twice. Closes ``directory``."""
    try:
        for entry in list(os.scandir(directory)):
            if entry.is_dir(follow_symlinks=False):
                _empty(os.open(entry.name, _DIRECTORY, dir_fd=directory))
                os.rmdir(entry.name, dir_fd=directory)
            else:
                os.unlink(entry.name, dir_fd=directory)
    finally:
        os.close(directory)


def _move_across(path: str, to: str) -> None:
    beside = os.path.join(os.path.dirname(to), f".hearth-{os.urandom(8).hex()}.tmp")
    try:
        _copy(path, beside)
        os.rename(beside, to)
    except BaseException:
        with contextlib.suppress(OSError):
            remove(beside, recursive=True)
        raise
    remove(path, recursive=True)


def _copy(source: str, target: str) -> None:
    status = os.lstat(source)
    if stat.S_ISLNK(status.st_mode):
        os.symlink(os.readlink(source), target)
    elif stat.S_ISDIR(status.st_mode):
        os.mkdir(target, 0o700)
        for name in os.listdir(source):
            _copy(os.path.join(source, name), os.path.join(target, name))
    elif stat.S_ISREG(status.st_mode):
        _copy_content(source, target)
    else:
        os.mknod(target, status.st_mode, status.st_rdev)
    with contextlib.suppress(PermissionError):
        os.chown(target, status.st_uid, status.st_gid, follow_symlinks=False)
    if not stat.S_ISLNK(status.st_mode):
        os.chmod(target, stat.S_IMODE(status.st_mode))
        os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))


def _copy_content(source: str, target: str) -> None:
    reader = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        writer = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            while data := os.read(reader, _COPY_BYTES):
                view = memoryview(data)
                while view:
                    view = view[os.write(writer, view) :]
        finally:
            os.close(writer)
    finally:
        os.close(reader)
