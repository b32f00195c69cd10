"""Templates: a machine of each shape, booted once and frozen before it got an identity; all others are its clones.

A template is a snapshot like any other; its id is the hash of all that went into it, so a stale one is never found. One
whose files were damaged is retired: it stays as long as others lie over it, and the next of its shape has another id.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import os
import secrets
import time
from dataclasses import dataclass
from pathlib import Path

import structlog

from hearth.control.capturing import take
from hearth.control.fleet import Member
from hearth.control.rehearsal import NO_TOKEN, rehearse
from hearth.engine.base import BootFiles, MachineSpec, SnapshotRefused
from hearth.engine.snapshot import FILE_MODE, load, verify_file
from hearth.errors import HearthError
from hearth.guest.client import Guest
from hearth.host.files import write_atomic
from hearth.host.threads import on_own_thread
from hearth.host.waiting import until_done
from hearth.jobs.bringup import Workshop, sleeping

log = structlog.get_logger(__name__)

PREFIX = "tpl-"
ID_DIGITS = 16
FORMAT = 4
"""Raised when templates are made in another way, so that old ones are not found any more."""
RETIRED = "retired"
"""A file beside those of a template that nothing is cloned from any more: it says why."""
SUCCESSORS = 4
"""So many are looked for after one that is not there: a retired one may have gone before them."""
LIVES = 2
"""The second finds the files that the first has made."""
SETTLE_S = 0.5
"""From the freeze to the snapshot. A machine that is copied while it closes the connections of whoever has just used it
closes them anew in every copy, half of the time of a first answer."""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What machines must have in common to be clones of one template."""

    boot: BootFiles
    cpus: int
    memory_mib: int


Looks = tuple[tuple[str, int, int, int], ...]
"""Name, size, time of the last change and inode of each file."""


def is_retired(directory: Path) -> bool:
    """Tell whether this template was found damaged."""
    return (directory / RETIRED).exists()


def _looks(directory: Path) -> Looks:
    files = [(path.name, path.stat()) for path in sorted(directory.iterdir())]
    return tuple((name, status.st_size, status.st_mtime_ns, status.st_ino) for name, status in files)


class Templates:
    """Makes templates, each once however many ask for it at a time."""

    def __init__(self, workshop: Workshop) -> None:
        self._workshop = workshop
        self._building: dict[str, asyncio.Task[None]] = {}
        self._proven: dict[str, Looks] = {}
        """Templates that this daemon has found whole, and how their files looked then."""

    async def ensure(self, shape: Shape) -> str:
        """Give the id of the template of a shape, making it where there is none: about one boot.

        A caller who leaves does not stop the others' template.

        Raises:
            EngineFailed, GuestFailed, TimedOut, NoSpace: it could not be made; nothing is left of it.
        """
        while True:
            template_id = await self.identify(shape)
            try:
                await self._ensure(template_id, shape)
            except SnapshotRefused as error:
                await self._retire(template_id, error)
            else:
                return template_id

    async def _ensure(self, template_id: str, shape: Shape) -> None:
        directory = self._workshop.data.snapshot(template_id)
        while not await asyncio.to_thread(directory.exists):
            task = self._building.get(template_id)
            if task is None:
                task = asyncio.create_task(self._build(template_id, shape), name=f"template {template_id}")
                self._building[template_id] = task
                task.add_done_callback(lambda _: self._building.pop(template_id, None))
            await asyncio.shield(task)
        looks = await asyncio.to_thread(_looks, directory)
        if self._proven.get(template_id) != looks:
            await self._prove(directory)
            self._proven[template_id] = looks
        os.utime(directory)  # the least recently used go first

    async def _prove(self, directory: Path) -> None:
        """Read every byte of a template; its memory is read for the first clone anyway."""
        has_memory = directory.name in self._proven

        def verify_rest() -> None:
            stored = load(directory)
            for name in stored.manifest.files:
                # A copy of the memory in use says nothing about the file any more.
                if has_memory or name != stored.manifest.memory.file:
                    verify_file(stored, name)

        await on_own_thread("verify template", verify_rest)
        await sleeping(self._workshop.engine).preload(directory)

    async def _retire(self, template_id: str, why: SnapshotRefused) -> None:
        """Have nothing cloned from a damaged template any more; what lies over it keeps what is left of it."""
        self._proven.pop(template_id, None)
        directory = self._workshop.data.snapshot(template_id)
        log.error("template retired", template=template_id, error=str(why))
        text = f"{why}\n".encode()
        with contextlib.suppress(FileNotFoundError):  # it was removed at this moment
            await asyncio.to_thread(write_atomic, directory / RETIRED, text, mode=FILE_MODE)

    async def identify(self, shape: Shape) -> str:
        """Tell the id that the template of a shape has, whether or not there is one.

        Raises:
            Conflict: the engine's machines do not sleep.
        """
        fingerprint = await sleeping(self._workshop.engine).fingerprint(self._spec(shape, "any"))
        parts = [str(FORMAT), fingerprint, shape.boot.rootfs_sha256]
        return await asyncio.to_thread(self._first_in_service, parts)

    def _first_in_service(self, parts: list[str]) -> str:
        """Give the template that is there and whole as far as is known, else the first id that is free."""
        free: str | None = None
        for number in itertools.count():
            text = "\0".join([*parts, str(number)] if number else parts)
            template_id = PREFIX + hashlib.sha256(text.encode()).hexdigest()[:ID_DIGITS]
            directory = self._workshop.data.snapshot(template_id)
            if not directory.exists():
                free = free or template_id
            elif not is_retired(directory):
                return template_id
            if free is not None and number >= SUCCESSORS:
                return free
        raise AssertionError("there is always another number")

    def is_retired(self, template_id: str) -> bool:
        """Tell whether a template was found damaged; its shape has another one now."""
        return is_retired(self._workshop.data.snapshot(template_id))

    async def preload(self) -> None:
        """Bring the template that was used last into memory, so that the first clone after a start need not wait."""
        engine = sleeping(self._workshop.engine)
        directories = await asyncio.to_thread(self._newest_first)
        for directory in directories[:1]:
            try:
                await engine.preload(directory)
            except (HearthError, OSError) as error:
                log.warning("template not preloaded", template=directory.name, error=str(error))

    def _newest_first(self) -> list[Path]:
        found = [path for path in self._workshop.data.snapshots.glob(f"{PREFIX}*") if path.suffix == ""]
        found = [path for path in found if not is_retired(path)]
        return sorted(found, key=lambda path: path.stat().st_mtime, reverse=True)

    async def close(self) -> None:
        """End what is being made; nothing is left of it."""
        tasks = list(self._building.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _build(self, template_id: str, shape: Shape) -> None:
        started_s = time.monotonic()
        machine_id = f"t-{template_id.removeprefix(PREFIX)[:8]}-{secrets.token_hex(2)}"
        try:
            member = await self._boot(self._spec(shape, machine_id))
            await rehearse(self._workshop, member.guest, machine_id, lives=LIVES, token=NO_TOKEN)
            final = self._workshop.data.snapshot(template_id)
            try:
                await take(member, final, with_disk=True, stay_paused=True, stay_frozen=False, settle_s=SETTLE_S)
            finally:
                await member.machine.kill()
        finally:
            removal = asyncio.create_task(self._workshop.take_down(machine_id), name=f"remove {machine_id}")
            await until_done(removal)
        log.info("template made", template=template_id, seconds=round(time.monotonic() - started_s, 2))

    async def _boot(self, spec: MachineSpec) -> Member:
        engine, network = self._workshop.engine, self._workshop.network
        await engine.prepare(spec)
        link = await network.setup(spec.id)
        try:
            machine = await engine.launch(spec, link)
        finally:
            os.close(link.tap_fd)
        guest = Guest(machine.dialer, None)
        try:
            await guest.wait_ready(self._workshop.settings.boot_timeout_s)
        except BaseException:
            await machine.kill()
            raise
        return Member(machine=machine, spec=spec, guest=guest)

    def _spec(self, shape: Shape, machine_id: str) -> MachineSpec:
        return MachineSpec(
            place=self._workshop.place(machine_id), cpus=shape.cpus, memory_mib=shape.memory_mib, boot=shape.boot
        )
