"""Users of the sandbox, read from its own /etc/passwd and /etc/group.

Not ``pwd`` and ``grp``: they ask libc's name service, which loads shared objects, and below the sandbox's root those
would be the sandbox's.
"""

from __future__ import annotations

import os
from typing import NamedTuple

DEFAULT_UID = 1000
_MAX_DATABASE_BYTES = 1024 * 1024


class Account(NamedTuple):
    """Whom a process runs as. ``groups`` are the supplementary ones."""

    name: str
    uid: int
    gid: int
    home: str
    groups: tuple[int, ...] = ()


def find_account(user: str) -> Account | None:
    """Look up a name or a decimal uid; a uid without an entry is an account of its own, an unknown name is None."""
    by_id = user.isascii() and user.isdigit()
    for fields in _rows("/etc/passwd", 7):
        if user in (fields[0], fields[2] if by_id else None) and fields[2].isdigit() and fields[3].isdigit():
            name, gid = fields[0], int(fields[3])
            return Account(name, int(fields[2]), gid, fields[5] or "/", _groups_of(name, gid))
    return Account(user, int(user), int(user), "/", ()) if by_id and int(user) < 2**31 else None


def own_account() -> Account:
    """Give the account this process runs as."""
    uid = os.geteuid()
    found = find_account(str(uid))
    home = found.home if found is not None else "/"
    return Account(found.name if found is not None else str(uid), uid, os.getegid(), home)


def _groups_of(name: str, gid: int) -> tuple[int, ...]:
    return tuple(
        int(fields[2])
        for fields in _rows("/etc/group", 4)
        if fields[2].isdigit() and int(fields[2]) != gid and name in fields[3].split(",")
    )


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
