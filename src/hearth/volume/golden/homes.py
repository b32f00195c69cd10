"""Which daemons of a host are at work in storages that several of them use: each holds a lock with its home's name.

A home is the id of a data directory, as volumes carry it. What a daemon made is its own for as long as it lives: it
knows what is done with it, who has a link to it, and what becomes of it. Others leave it alone.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import re
from collections.abc import Awaitable, Callable, Collection
from pathlib import Path

from hearth.errors import Conflict
from hearth.host.locks import RETRY_S, FileLock, is_named, try_lock

KeeperOf = Callable[[str], Awaitable[str | None]]
"""Says which other daemon keeps what was made in a home; None where nobody does."""
Kin = Callable[[], Awaitable[Collection[str]]]
"""Gives the homes of the daemons that share our jobs: what they made is as good as ours."""
ENTER_WAIT_S = 10.0
"""Somebody may be looking at whether we live."""
NAME = re.compile(r"[0-9A-Za-z][0-9A-Za-z-]{0,63}")


async def nobody_keeps(_home: str) -> str | None:
    """Know of no other daemon."""
    return None


async def no_kin() -> Collection[str]:
    """Share jobs with nobody."""
    return ()


class Homes:
    """The homes of one host.

    Args:
        home: ours.
        locks: a directory that all daemons of this host use.
    """

    def __init__(self, home: str, locks: Path, kin: Kin = no_kin) -> None:
        self._home, self._locks, self._kin = home, locks, kin
        self._held: FileLock | None = None

    async def enter(self, wait_s: float = ENTER_WAIT_S) -> None:
        """Let others see that we live, until ``leave`` or our end.

        Raises:
            Conflict: another daemon has our home: its data directory, or ours, is a copy.
        """
        if self._held is not None:
            return
        deadline_s = asyncio.get_running_loop().time() + wait_s
        while (held := try_lock(self._path(self._home))) is None:
            if asyncio.get_running_loop().time() >= deadline_s:
                raise Conflict(
                    "another daemon has this data directory's id",
                    details=f"{self._home}, by which volumes tell whose they are, is in use on this host",
                    resolution="was the data directory copied? Then delete host.id in the copy",
                )
            await asyncio.sleep(RETRY_S)
        self._held = held

    def leave(self) -> None:
        """Let others see that we are gone."""
        held, self._held = self._held, None
        if held is not None:
            held.discard()

    async def keeper_of(self, home: str) -> str | None:
        """Say which other daemon made something, if that one lives and shares no jobs with us."""
        if home in ("", self._home) or NAME.fullmatch(home) is None or not self._is_living(home):
            return None
        if home in await self._kin():
            return None
        return f"the daemon of data directory {home}, which made it and is running"

    def _is_living(self, home: str) -> bool:
        path = self._path(home)
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)  # several may look at once
        except BlockingIOError:
            return is_named(descriptor, path)
        else:
            return False
        finally:
            os.close(descriptor)

    def _path(self, home: str) -> Path:
        return self._locks / f"home-{home}.lock"
