"""A file written as a whole or not at all: a temporary of a name of its own beside it, fsync, rename."""

from __future__ import annotations

import contextlib
import os
import stat
from types import TracebackType

from hearth.agent.files.paths import check_regular, make_parents, owner_of_new
from hearth.agent.state import Agent
from hearth.wire.runtime_typing import Self

DEFAULT_MODE = 0o644
FLUSH_BYTES = 64 * 1024 * 1024
"""So much may wait for the disk: the end of a large file then takes no longer than that of a small one."""
_SET_ID = stat.S_ISUID | stat.S_ISGID


class AtomicWrite:
    """Use as ``with``: ``write`` pieces, then ``commit``; leaving without it removes the temporary.

    Entering does all that can fail before there is content: the path, the right to write, the space.

    Args:
        size: what is going to be written, in bytes.
        mode: None to keep the mode of an existing file.
        follow: write the file a symlink points to; otherwise the link itself is replaced.
        durable: have it on the disk before it takes its place.
        owner: whose it becomes, and the directories made for it; None to keep an existing file's.

    Raises:
        Refused: there is a directory or special file at the path.
        OSError: the path cannot be written.
    """

    def __init__(
        self,
        agent: Agent,
        path: str,
        size: int,
        mode: int | None,
        *,
        follow: bool = True,
        durable: bool = True,
        owner: tuple[int, int] | None = None,
    ) -> None:
        self._agent = agent
        self._path = os.path.realpath(path) if follow and os.path.islink(path) else path
        self._follow = follow
        self._durable = durable
        self._owner = owner
        self._size = size
        self._mode = mode
        self._final_mode = 0
        self._descriptor = -1
        self._temporary: str | None = None
        self._unflushed = 0

    def __enter__(self) -> Self:
        directory, name = os.path.split(self._path)
        if not name:
            raise IsADirectoryError(21, os.strerror(21), self._path)
        existing = self._existing()
        if existing is None:
            make_parents(self._agent, directory or ".", owner=self._owner)
        temporary = os.path.join(directory, f".hearth-{os.urandom(8).hex()}.tmp")
        try:
            self._descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            self._temporary = temporary
            self._take_over(existing, directory or ".")
            if self._size and hasattr(os, "posix_fallocate"):
                os.posix_fallocate(self._descriptor, 0, self._size)
        except OSError as error:
            self._abandon()
            error.filename = self._path  # the temporary's name would tell nobody anything
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._abandon()

    def write(self, data: bytes | memoryview) -> None:
        """Add content.

        Raises:
            OSError: the disk failed.
        """
        view = memoryview(data)
        self._unflushed += len(view)
        while view:
            view = view[os.write(self._descriptor, view) :]
        if self._durable and self._unflushed >= FLUSH_BYTES:
            self._unflushed = 0
            os.fsync(self._descriptor)

    def give_to(self, uid: int, gid: int) -> None:
        """Let another own the file; its mode stays.

        Raises:
            OSError: we may not.
        """
        os.fchown(self._descriptor, uid, gid)
        os.fchmod(self._descriptor, self._final_mode)

    def commit(self) -> None:
        """Put the file in its place.

        Raises:
            OSError: the disk failed, or the place was taken by a directory.
        """
        assert self._temporary is not None
        if self._final_mode & _SET_ID:
            os.fchmod(self._descriptor, self._final_mode)  # a write by anyone but root has cleared them
        if self._durable:
            os.fsync(self._descriptor)
        os.rename(self._temporary, self._path)
        self._temporary = None

    def _existing(self) -> os.stat_result | None:
        try:
            status = os.lstat(self._path)
        except FileNotFoundError:
            return None
        if not self._follow and stat.S_ISLNK(status.st_mode):
            return None
        check_regular(self._path, status)
        return status

    def _take_over(self, existing: os.stat_result | None, directory: str) -> None:
        """Give the temporary the owner and mode the file has, or a new one gets."""
        if existing is None:
            owner, mode = owner_of_new(self._agent, os.stat(directory)), DEFAULT_MODE
        else:
            owner, mode = (existing.st_uid, existing.st_gid), existing.st_mode & 0o7777
        owner = self._owner or owner
        made = os.fstat(self._descriptor)
        if owner is not None and owner != (made.st_uid, made.st_gid):
            os.fchown(self._descriptor, *owner)
        self._final_mode = mode if self._mode is None else self._mode
        os.fchmod(self._descriptor, self._final_mode)  # behind chown, which clears setuid

    def _abandon(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        if self._temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(self._temporary)
            self._temporary = None
