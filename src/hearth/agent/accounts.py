"""Users of the sandbox, read from its own /etc/passwd and /etc/group.

Not ``pwd`` and ``grp``: they ask libc's name service, which loads shared objects, and below the sandbox's root those
would be the sandbox's.
"""

from __future__ import annotations

import os
import stat

from hearth.wire.runtime_typing import NamedTuple

DEFAULT_UID = 1000
_PASSWD = "/etc/passwd"  # noqa: S105 -- a file name
_GROUP = "/etc/group"
_MAX_DATABASE_BYTES = 1024 * 1024


class Account(NamedTuple):
    """Whom a process runs as. ``groups`` are the supplementary ones."""

    name: str
    uid: int
    gid: int
    home: str
    groups: tuple[int, ...] = ()


class Accounts:
    """The two files, read again only when they have changed."""

    def __init__(self) -> None:
        self._state: tuple[object, object] | None = None
        self._found: dict[str, Account | None] = {}

    def find(self, user: str) -> Account | None:
        """Look up a name or a decimal uid; a uid without an entry is an account of its own, an unknown name is None."""
        state = (_fingerprint(_PASSWD), _fingerprint(_GROUP))
        if state != self._state:
            self._state, self._found = state, {}
        found = self._found
        if user not in found:
            if len(found) > 64:
                found.clear()
            found[user] = _look_up(user)
        return found[user]

    def own(self) -> Account:
        """Give the account this process runs as, with the groups it has."""
        uid = os.geteuid()
        found = self.find(str(uid))
        return found or Account(str(uid), uid, os.getegid(), "/")


def _look_up(user: str) -> Account | None:
    by_id = user.isascii() and user.isdigit()
    for fields in _rows(_PASSWD, 7):
        if user in (fields[0], fields[2] if by_id else None) and _are_ids(fields[2], fields[3]):
            name, gid = fields[0], int(fields[3])
            return Account(name, int(fields[2]), gid, fields[5] or "/", _groups_of(name, gid))
    if user == "root":  # there is always one, also where there is no list
        return Account(user, 0, 0, "/")
    return Account(user, int(user), int(user), "/") if by_id and _are_ids(user) else None


def _groups_of(name: str, gid: int) -> tuple[int, ...]:
    return tuple(
        int(fields[2])
        for fields in _rows(_GROUP, 4)
        if _are_ids(fields[2]) and int(fields[2]) != gid and name in fields[3].split(",")
    )


def _are_ids(*texts: str) -> bool:
    return all(text.isascii() and text.isdigit() and len(text) <= 10 and int(text) < 2**32 - 1 for text in texts)


def _rows(path: str, columns: int) -> list[list[str]]:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return []
    try:
        text = os.read(descriptor, _MAX_DATABASE_BYTES).decode("utf-8", "surrogateescape")
    except OSError:
        return []
    finally:
        os.close(descriptor)
    return [fields for line in text.splitlines() if len(fields := line.split(":")) >= columns]


def _fingerprint(path: str) -> object:
    try:
        status = os.stat(path)
    except OSError:
        return None
    if not stat.S_ISREG(status.st_mode):
        return None
    return status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size
