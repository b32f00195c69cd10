"""What file services share: regular files only, modes as octal text, FileInfo, and whose a new file is."""

from __future__ import annotations

import os
import stat

from hearth.agent.accounts import DEFAULT_UID
from hearth.agent.refusal import Refused, refused
from hearth.agent.state import Agent
from hearth.wire.faults import Fault
from hearth.wire.messages import FileInfo

_MAX_MODE = 0o7777


def parse_mode(text: str | None) -> int | None:
    """Read an octal mode.

    Raises:
        Refused: it is none.
    """
    if text is None:
        return None
    if not text or len(text) > 5 or set(text) - set("01234567") or int(text, 8) > _MAX_MODE:
        raise refused(Fault.INVALID, f"mode {text[:20]!r} is not an octal number up to 7777")
    return int(text, 8)


def octal(mode: int) -> str:
    """Give the 4 octal digits of a mode."""
    return f"{stat.S_IMODE(mode):04o}"


def file_info(name: str, status: os.stat_result) -> FileInfo:
    """Describe a directory entry."""
    return FileInfo(
        name=name,
        size=status.st_size,
        mode=octal(status.st_mode),
        is_dir=stat.S_ISDIR(status.st_mode),
        mtime=int(status.st_mtime),
    )


def first_names(path: str, limit: int) -> tuple[list[str], int]:
    """Give the first ``limit`` names of a directory in their order, and how many there are; memory stays bounded.

    Raises:
        OSError: it is no directory, or not ours to read.
    """
    names: list[str] = []
    total = 0
    with os.scandir(path) as entries:
        for entry in entries:
            names.append(entry.name)
            total += 1
            if len(names) == 4 * limit:
                names.sort()
                del names[limit:]
    return sorted(names)[:limit], total


def open_regular(path: str) -> tuple[int, os.stat_result]:
    """Open a regular file for reading; looks before it opens, as opening a device or FIFO may have effects.

    Raises:
        Refused: it is a directory or special file.
        OSError: it is not there, or not ours to read.
    """
    check_regular(path, os.stat(path))
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        status = os.fstat(descriptor)
        check_regular(path, status)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor, status


def check_regular(path: str, status: os.stat_result) -> None:
    """Refuse what has no content of its own.

    Raises:
        Refused: it is a directory or special file.
    """
    if stat.S_ISREG(status.st_mode):
        return
    raise _wrong_kind(path, "Is a directory" if stat.S_ISDIR(status.st_mode) else "Not a regular file")


def owner_of_new(agent: Agent, directory: os.stat_result) -> tuple[int, int] | None:
    """Tell whose a new entry of a directory becomes, as (uid, gid); None to leave it as the system makes it.

    The agent of a machine is root, and what it makes should be usable by the commands that run beside it: an entry
    belongs to whom its directory belongs, in a directory for everybody (``/tmp``) to the sandbox's user.
    """
    if not agent.in_machine:
        return None
    if directory.st_mode & stat.S_IWOTH:
        account = agent.accounts.find(agent.user or str(DEFAULT_UID))
        return (account.uid, account.gid) if account is not None else None
    return directory.st_uid, directory.st_gid


def owner_named(agent: Agent, user: str | None) -> tuple[int, int] | None:
    """Give a user of the sandbox as (uid, gid); None for none.

    Raises:
        Refused: there is no such user.
    """
    if user is None:
        return None
    account = agent.accounts.find(user)
    if account is None:
        raise refused(Fault.INVALID, f"there is no user {user[:100]!r}")
    return account.uid, account.gid


def make_parents(agent: Agent, path: str, mode: int = 0o755, *, owner: tuple[int, int] | None = None) -> None:
    """Make a directory and its parents; one that is there is fine. Without ``owner`` they are as new ones are.

    Raises:
        OSError: one of them is no directory, or may not be made.
    """
    try:
        status = os.stat(path)
    except FileNotFoundError:
        status = None
    if status is not None:
        if not stat.S_ISDIR(status.st_mode):
            raise NotADirectoryError(20, os.strerror(20), path)
        return
    parent = os.path.dirname(path.rstrip("/")) or "."
    if parent != path:
        make_parents(agent, parent, owner=owner)
    try:
        os.mkdir(path, mode)
    except FileExistsError:  # another request made it just now
        return
    owner = owner or owner_of_new(agent, os.stat(parent))
    if owner is not None:
        os.chown(path, *owner, follow_symlinks=False)
    os.chmod(path, mode)


def _wrong_kind(path: str, words: str) -> Refused:
    shown = os.fsencode(path).decode("utf-8", "replace")
    return refused(Fault.INVALID, f"{shown}: {words}")
