"""A user id of its own for every VMM, so that one that was broken out of can neither signal nor trace another.

The machine's directory is owned by its user: the allocation is on disk, in the open, and goes with the machine.
"""

from __future__ import annotations

import os
import zlib
from pathlib import Path

from hearth.errors import Unavailable

BASE = 1_900_000_000
"""Above what distributions and containers hand out (systemd's documentation, "Users, Groups, UIDs and GIDs")."""
BLOCKS = 2048
PER_BLOCK = 65_536


def take_user(directory: Path) -> int:
    """Give a fresh machine directory to a user id that no sibling has; without root, everything stays ours.

    Raises:
        Unavailable: every id of this data directory's block is taken.
    """
    if os.geteuid() != 0:
        return os.geteuid()
    machines = directory.parent
    first = BASE + zlib.crc32(os.fsencode(machines.absolute())) % BLOCKS * PER_BLOCK
    taken = {entry.stat(follow_symlinks=False).st_uid for entry in os.scandir(machines)}
    user = next((number for number in range(first, first + PER_BLOCK) if number not in taken), None)
    if user is None:
        raise Unavailable("no user id left for another VMM", details=str(machines), resolution="destroy sandboxes")
    os.chown(directory, user, user)
    return user


def user_of(directory: Path) -> int:
    """Tell whose VMM this machine's is."""
    return directory.stat().st_uid
