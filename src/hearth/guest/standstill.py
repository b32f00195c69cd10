"""Freezing and thawing a guest's file systems, and asking it why things in it ended; what it says is checked."""

from __future__ import annotations

from collections.abc import Sequence

from hearth.errors import GuestFailed, NoSpace
from hearth.guest.connector import Connector
from hearth.guest.faults import Deadline, decode_reply, decode_reply_list, encode_request, printable
from hearth.guest.status import expect_ok
from hearth.wire.frames import FrameType
from hearth.wire.messages import FreezeRequest, FrozenMount, LastWords, OomKill

MAX_MOUNTS = 256
MAX_OOM_KILLS = 64
_MAX_PID = 4_194_304
_SHOWN_PROCESS = 64


async def freeze(connector: Connector, *, timeout_s: float, thaw_after_s: float) -> list[FrozenMount]:
    """Freeze every writable disk of the guest and give what is frozen, ``/`` among it.

    Raises:
        HearthError: the guest refused, or one of its disks cannot be frozen; then none is.
        TimedOut, GuestFailed: it did not answer, or wrongly; it thaws by itself then.
    """
    request = FreezeRequest(timeout_sec=timeout_s, thaw_after_sec=thaw_after_s)
    async with Deadline(timeout_s + connector.patience.reply_s, "freezing the file systems"):
        with await connector.open(encode_request(FrameType.FREEZE_REQ, request), urgent=True) as connection:
            frame = await connection.expect(FrameType.FREEZE_RESP)
    return _checked(decode_reply_list(FrozenMount, frame.payload))


async def thaw(connector: Connector, *, timeout_s: float) -> None:
    """Thaw what is frozen; nothing frozen is fine.

    Raises:
        TimedOut, GuestFailed: the guest did not answer, or wrongly.
    """
    async with Deadline(timeout_s, "thawing the file systems"):
        with await connector.open(encode_request(FrameType.THAW_REQ), urgent=True) as connection:
            await expect_ok(connection, FrameType.THAW_RESP)


async def last_words(connector: Connector) -> LastWords:
    """Ask what the guest's kernel has killed for want of memory; names are made printable.

    Raises:
        TimedOut, GuestFailed: the guest did not answer, or wrongly.
    """
    async with Deadline(connector.patience.reply_s, "asking for last words"):
        with await connector.open(encode_request(FrameType.LAST_WORDS_REQ), urgent=True) as connection:
            frame = await connection.expect(FrameType.LAST_WORDS_RESP)
    words = decode_reply(LastWords, frame.payload)
    if words.uptime_sec < 0 or len(words.oom_kills) > MAX_OOM_KILLS:
        raise GuestFailed("the guest broke the protocol", details="no such uptime, or too many kills")
    return LastWords(uptime_sec=words.uptime_sec, oom_kills=[_kill(kill) for kill in words.oom_kills])


def require_room(mounts: Sequence[FrozenMount], *, mount: str = "/", most: float = 0.95) -> None:
    """See that a frozen file system is not too full, as df(1) counts: of what its users can have.

    Args:
        mounts: what ``freeze`` gave.
        mount: the one to look at.
        most: the largest share, 0 to 1, that may be used.

    Raises:
        NoSpace: it is fuller.
    """
    for one in mounts:
        if one.mount == mount and one.used_bytes > most * (one.used_bytes + one.available_bytes):
            share = one.used_bytes / (one.used_bytes + one.available_bytes)
            raise NoSpace(
                "the sandbox's disk is too full to be put to sleep",
                details=f"{printable(mount)} is {share:.1%} full, the most is {most:.0%}",
                resolution="remove files in the sandbox, or give it a larger disk",
            )


def _checked(mounts: list[FrozenMount]) -> list[FrozenMount]:
    if len(mounts) > MAX_MOUNTS:
        raise GuestFailed("the guest broke the protocol", details=f"{len(mounts)} file systems")
    for mount in mounts:
        if mount.used_bytes > mount.total_bytes or mount.available_bytes > mount.total_bytes:
            raise GuestFailed("the guest broke the protocol", details=f"{printable(mount.mount)} is fuller than full")
    if not any(mount.mount == "/" for mount in mounts):
        raise GuestFailed("the guest did not freeze its root file system", details=f"{len(mounts)} others are frozen")
    return mounts


def _kill(kill: OomKill) -> OomKill:
    if not 0 < kill.pid <= _MAX_PID or kill.seconds < 0:
        raise GuestFailed("the guest broke the protocol", details=f"no process {kill.pid} at {kill.seconds} s")
    return OomKill(process=printable(kill.process[:_SHOWN_PROCESS]), pid=kill.pid, seconds=kill.seconds)
