"""A user id of its own for every VMM, so that one that was broken out of can neither signal nor trace another.

The machine's directory is owned by its user: the allocation is on disk, in the open, and goes with the machine.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from hearth.errors import Unavailable
from hearth.host.processes import PROC
from hearth.host.rights import may_give_users

FIRST = 1_900_000_000
COUNT = 134_217_728
"""Above what distributions and containers hand out (systemd's documentation, "Users, Groups, UIDs and GIDs"). Drawn at
random: two data directories on one host do not know of each other."""
DRAWS = 100


def take_user(directory: Path) -> int:
    """Give a fresh machine directory to a user id that no sibling and no process has; without the rights it stays ours.

    Raises:
        Unavailable: no free id was found.
    """
    if not may_give_users():
        return os.geteuid()
    taken = {*_owners(directory.parent), *_owners(PROC)}
    user = next((number for number in (_draw() for _ in range(DRAWS)) if number not in taken), None)
    if user is None:
        raise Unavailable("no user id left for another VMM", details=str(directory.parent))
    os.chown(directory, user, user)
    return user


def user_of(directory: Path) -> int | None:
    """Tell whose VMM this machine's is; None when there is no such machine."""
    try:
        return directory.stat().st_uid
    except FileNotFoundError:
        return None


def is_vmm_user(user: int | None, owner: int | None) -> bool:
    """Tell whether a process of ``user`` can be the VMM of a machine of ``owner`` (None: its directory is gone)."""
    if owner is not None:
        return user == owner
    is_ours = user == os.geteuid() and not may_give_users()
    return user is not None and (is_ours or FIRST <= user < FIRST + COUNT)


def _draw() -> int:
    return FIRST + secrets.randbelow(COUNT)


def _owners(parent: Path) -> Iterator[int]:
    for entry in os.scandir(parent):
        with contextlib.suppress(FileNotFoundError):  # removed meanwhile
            yield entry.stat(follow_symlinks=False).st_uid
