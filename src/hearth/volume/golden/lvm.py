"""LVM by its commands: argument lists from pure functions, JSON reports instead of prose, one mutator at a time.

What cannot be seen without a kernel (activation, thin pools' behaviour, whether a device is open) is for a machine with
device-mapper; ``has_driver=False`` leaves it out, so that everything else can be tried on a loop device.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from hearth.errors import Conflict, NotFound
from hearth.host import locks
from hearth.host.process import CommandFailed, Completed, run
from hearth.host.waiting import until_done
from hearth.volume.golden.base import NAME_FIELD
from hearth.volume.golden.lvm_reports import Group, LogicalVolume, dependents, parse_groups, parse_volumes, translate
from hearth.volume.golden.lvm_words import (
    activate_words,
    create_words,
    deactivate_words,
    extend_words,
    group_words,
    protect_words,
    remove_words,
    rename_words,
    retag_words,
    snapshot_words,
    volume_words,
)

log = structlog.get_logger(__name__)

REPORT_TIMEOUT_S = 120.0
CHANGE_TIMEOUT_S = 3600.0
"""Removing a large volume may take minutes, and LVM that is killed meanwhile leaves devices suspended."""
LOCK_WAIT_S = 600.0
BUSY = re.compile(r"(can't|cannot|could not|unable to) (get|obtain|acquire|lock)|held by|temporarily", re.IGNORECASE)
OPEN_LOOKS, OPEN_PAUSE_S = 4, 0.25
"""A volume that was just written or renamed is opened for a moment by udev's rules; users stay longer than that."""


@dataclass(frozen=True, kw_only=True)
class LvmSettings:
    """Which group, and how it is worked on.

    Args:
        group: its name.
        lock: a file that whoever changes the group holds.
        attempts: at a command that finds LVM's own locks taken; ``backoff_ms`` between them.
        environment: for LVM, such as ``LVM_SYSTEM_DIR``.
        has_driver: whether this kernel has device-mapper.
    """

    group: str
    lock: Path
    attempts: int = 2
    backoff_ms: tuple[int, ...] = (100, 1_000)
    environment: Mapping[str, str] = field(default_factory=dict)
    has_driver: bool = True


class Lvm:
    """Runs commands on one volume group. Changes are not interrupted: a cancelled caller waits for their end.

    The methods that change something belong inside ``async with lvm.alone()``: what was read there stays true.
    """

    def __init__(self, settings: LvmSettings) -> None:
        self._settings = settings
        self._mine = asyncio.Lock()

    @property
    def group_name(self) -> str:
        return self._settings.group

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """Keep everybody else who uses the same lock from changing the group meanwhile.

        Raises:
            TimedOut: somebody was at it for ten minutes.
        """
        async with self._mine, locks.lock(self._settings.lock, timeout_s=LOCK_WAIT_S):
            yield

    async def group(self) -> Group:
        """Tell of the group.

        Raises:
            NotFound: there is none of that name.
        """
        done = await self._run(group_words(self._settings.group))
        return parse_groups(done.stdout)[0]

    async def volumes(self) -> list[LogicalVolume]:
        """Tell of all its volumes by one command."""
        return parse_volumes((await self._run(volume_words(self._settings.group))).stdout)

    async def describe(self, name: str) -> LogicalVolume:
        """Tell of one volume.

        Raises:
            NotFound: there is none.
        """
        for volume in await self.volumes():
            if volume.name == name:
                return volume
        raise NotFound("no such volume", details=f"there is no {self.group_name}/{name[:80]}", field=NAME_FIELD)

    async def is_open(self, name: str) -> bool:
        """Tell whether somebody has a volume open for longer than a moment; what is not known counts as open."""
        for look in range(OPEN_LOOKS):
            if look:
                await asyncio.sleep(OPEN_PAUSE_S)
            volume = await self.describe(name)
            if volume.is_open is False or (volume.is_open is None and not self._settings.has_driver):
                return False
        return True

    async def create(self, name: str, size_bytes: int, tags: Mapping[str, str], *, pool: str | None = None) -> None:
        """Make a volume, thin where a pool is named; its size is rounded up to whole extents.

        Raises:
            InvalidInput, Conflict, NoSpace: as their names say; nothing is left.
        """
        has_driver = self._settings.has_driver
        await self._change(create_words(self.group_name, name, size_bytes, tags, pool=pool, has_driver=has_driver))

    async def snapshot(self, origin: str, name: str, tags: Mapping[str, str]) -> None:
        """Make a thin volume that shares all it holds with another thin one."""
        await self._change(snapshot_words(self.group_name, origin, name, tags))

    async def rename(self, name: str, new_name: str) -> None:
        """Give a volume another name, in one step.

        Raises:
            NotFound, Conflict: as their names say.
        """
        await self._change(rename_words(self.group_name, name, new_name))

    async def extend(self, name: str, size_bytes: int) -> None:
        """Make a volume larger.

        Raises:
            NotFound, NoSpace: as their names say.
        """
        await self._change(extend_words(self.group_name, name, size_bytes))

    async def retag(self, name: str, *, add: Mapping[str, str], remove: Mapping[str, str]) -> None:
        """Change tags."""
        await self._change(retag_words(self.group_name, name, add=add, remove=remove))

    async def tag(self, volume: LogicalVolume, tags: Mapping[str, str]) -> None:
        """Give a volume tags, in the place of those it has of the same keys."""
        added = {key: value for key, value in tags.items() if volume.tag(key) != value}
        if added:
            removed = {key: volume.tag(key) for key in added if volume.tag(key)}
            await self.retag(volume.name, add=added, remove=removed)

    async def seal(self, name: str) -> None:
        """Let nobody write to a volume any more, nor see it but as the origin of others."""
        await self._change(protect_words(self.group_name, name))
        await self._change(deactivate_words(self.group_name, name))

    async def activate(self, name: str) -> None:
        """Make a volume's device; one that is there is fine."""
        await self._change(activate_words(self.group_name, name))

    async def remove(self, name: str, *, uuid: str, tag: tuple[str, str]) -> None:
        """Remove the volume of this name if it is still that one, has this tag of ours and nobody has it open.

        Raises:
            Conflict: it is another one, none of ours, open, or others would be lost with it.
        """
        volumes = await self.volumes()
        found = [volume for volume in volumes if volume.name == name]
        if not found:
            return
        if found[0].uuid != uuid or found[0].tag(tag[0]) != tag[1]:
            raise self._not_removed(name, "is not the one that was meant")
        if lost := dependents(name, volumes):
            raise self._not_removed(name, f"would take {', '.join(lost)} with it")
        if await self.is_open(name):
            raise self._not_removed(name, "is open")
        await self._change(remove_words(self.group_name, name))

    def _not_removed(self, name: str, why: str) -> Conflict:
        return Conflict(
            "the volume is not removed",
            details=f"{self.group_name}/{name} {why}",
            resolution="end whoever uses it",
            field=NAME_FIELD,
        )

    async def _change(self, words: Sequence[str]) -> None:
        work = asyncio.ensure_future(self._run(words, CHANGE_TIMEOUT_S))
        try:
            await asyncio.shield(work)
        except asyncio.CancelledError:
            await until_done(work)
            if not work.cancelled():
                work.exception()
            raise

    async def _run(self, words: Sequence[str], timeout_s: float = REPORT_TIMEOUT_S) -> Completed:
        argv = [*words, *([] if self._settings.has_driver else ["--driverloaded", "n"])]
        environment = {"LVM_SUPPRESS_FD_WARNINGS": "1", **self._settings.environment}
        for attempt in range(1, max(1, self._settings.attempts) + 1):
            try:
                return await run(argv, timeout_s=timeout_s, environment=environment)
            except CommandFailed as error:
                if attempt >= self._settings.attempts or not BUSY.search(error.output):
                    raise translate(error) from error
                log.info("LVM is busy, trying again", command=argv[0], why=error.output.strip()[-200:])
                pauses_ms = self._settings.backoff_ms or (0,)
                await asyncio.sleep(pauses_ms[min(attempt, len(pauses_ms)) - 1] / 1000)
        raise AssertionError("the last attempt returns or raises")
