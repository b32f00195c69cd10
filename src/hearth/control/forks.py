"""Copies of sandboxes: what is taken of a living one, and sandboxes that go on from there, each with its own identity.

A copy that fails leaves nothing; those that came up stay, and the error names them.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import structlog

from hearth.bounds import MAX_COPIES
from hearth.control.capturing import Taken, take, turn_of
from hearth.control.creation import NO_EXTRAS, Creation, Extras, Source, new_sandbox, outcome, sized
from hearth.control.fleet import Fleet
from hearth.control.images import Images
from hearth.control.networking import inherited
from hearth.control.shelf import FORK_PREFIX, Shelf
from hearth.control.sleep import Sleep
from hearth.control.space import require_space
from hearth.control.wakeable import cannot_wake
from hearth.engine.snapshot import StoredSnapshot, load
from hearth.errors import Conflict, HearthError, InvalidInput, NotFound
from hearth.host.identity import new_id
from hearth.jobs.bringup import Workshop, sleeping
from hearth.jobs.secrets import merged
from hearth.model import Heat, Sandbox, SandboxSpec, User, VolumePlacement, check_name, check_range
from hearth.quota import total
from hearth.store.base import SandboxExists, Store
from hearth.store.quota_store import amounts_of_spec

log = structlog.get_logger(__name__)

COPIES_AT_ONCE = 4
"""Copies that come up at a time; an emulated machine keeps a CPU busy meanwhile."""
MAX_NAME_CHARACTERS = 63
SUFFIX_CHARACTERS = 4
DEFAULTS = SandboxSpec(name="default")


class CopiesFailed(HearthError):
    """Some of several copies did not come up and are gone; ``made`` came up and stay."""

    def __init__(self, made: Sequence[Sandbox], failures: Mapping[str, HearthError]) -> None:
        first = next(iter(failures.values()))
        names = ", ".join(sandbox.spec.name for sandbox in made) or "none"
        failed = "; ".join(f"{name}: {error.brief}" for name, error in failures.items())
        super().__init__(
            f"{len(failures)} of {len(failures) + len(made)} copies failed",
            details=f"made: {names}; failed: {failed}. {first}",
            resolution=first.resolution,
        )
        self.code = first.code
        self.made = made


@dataclass(frozen=True, kw_only=True)
class Model:
    """What copies are made of: a snapshot with its disk, of the sandbox ``known_as``; ``parent`` is told to users."""

    snapshot: str
    known_as: str
    parent: str
    spec: SandboxSpec


class Forks:
    """Takes copies of living sandboxes and brings them up."""

    def __init__(
        self,
        *,
        store: Store,
        workshop: Workshop,
        fleet: Fleet,
        creation: Creation,
        sleep: Sleep,
        images: Images,
        shelf: Shelf,
    ) -> None:
        self._store = store
        self._workshop = workshop
        self._fleet = fleet
        self._creation = creation
        self._sleep = sleep
        self._images = images
        self._shelf = shelf

    async def capture(self, sandbox: Sandbox, final: Path, *, disk_only: bool = False) -> Taken:
        """Publish memory and disk of a sandbox as ``final``, waking it if need be; it runs on.

        Args:
            disk_only: the disk alone will be used.

        Raises:
            Conflict: the engine's machines do not sleep, it cannot be woken, its disk is too full, or it writes to a
                volume, whose file system two memories cannot share.
            NoSpace, EngineFailed, GuestFailed, TimedOut, SnapshotRefused: nothing was taken.
        """
        sleeping(self._workshop.engine)
        await require_space(self._workshop, self._shelf)
        # What it lies over must be there until the copy is: its source may be destroyed meanwhile.
        with contextlib.ExitStack() as held:
            if sandbox.origin is not None:
                held.enter_context(self._shelf.pin(sandbox.origin))
            taken = await self._take(sandbox, final, disk_only=disk_only)
        size = taken.snapshot.size_bytes
        paused_ms = round(taken.paused_s * 1000, 1)
        log.info("sandbox captured", sandbox=sandbox.id, snapshot=final.name, paused_ms=paused_ms, bytes=size)
        return taken

    async def _take(self, sandbox: Sandbox, final: Path, *, disk_only: bool) -> Taken:
        """Take it when it is hot, and keep others from it only for as long as it stands still."""
        resident = self._sleep.residents[sandbox.id]
        # Other captures are waited for before the lock is taken: it can be used meanwhile.
        async with self._sleep.awake(sandbox), turn_of(self._fleet.member(sandbox.id), stays_paused=False) as turn:
            while True:
                async with contextlib.AsyncExitStack() as changing:
                    await changing.enter_async_context(resident.lock)
                    member = self._fleet.member(sandbox.id)
                    if member is None or turn is None:  # a turn is never waited for with the lock
                        raise cannot_wake(await self._store.sandboxes.get(sandbox.id))
                    if resident.heat is Heat.HOT:
                        done = _released(changing, resident.lock)
                        if not disk_only:
                            _check_copyable(await self._workshop.volumes.placements(sandbox.id))
                        seal = await self._workshop.volumes.sealer(sandbox.id)
                        return await take(
                            member, final, with_disk=True, stay_paused=False, on_running=done, seal=seal, turn=turn
                        )
                await self._sleep.ensure_hot(sandbox)  # somebody paused it at this moment

    async def fork(
        self, user: User, sandbox: Sandbox, specs: Sequence[SandboxSpec], extras: Extras = NO_EXTRAS
    ) -> Sequence[Sandbox]:
        """Copy a sandbox as it is at one moment, once for each of ``specs``.

        Raises:
            Conflict: a name is taken, or as ``capture``.
            CopiesFailed: some of several did not come up.
            NoSpace, EngineFailed, GuestFailed, TimedOut, SnapshotRefused: no copy was made.
        """
        await self.require_free(user, specs)
        snapshot_id = new_id(FORK_PREFIX.rstrip("-"))
        async with self._shelf.hold(snapshot_id):
            try:
                await self.capture(sandbox, self._workshop.data.snapshot(snapshot_id))
                model = Model(snapshot=snapshot_id, known_as=sandbox.id, parent=sandbox.id, spec=sandbox.spec)
                return await self.copies(user, model, specs, extras)
            finally:
                self._shelf.tidy()  # should no copy lie over it

    async def copies(
        self, user: User, model: Model, specs: Sequence[SandboxSpec], extras: Extras = NO_EXTRAS
    ) -> Sequence[Sandbox]:
        """Bring up copies of a snapshot that the caller holds; a caller who leaves does not undo those begun.

        Args:
            extras: what the only copy gets besides what its source has.

        Raises:
            SandboxExists: a name was taken meanwhile.
            CopiesFailed: some of several did not come up.
            SnapshotRefused, EngineFailed, GuestFailed, TimedOut: the only one did not.
        """
        stored = await asyncio.to_thread(load, self._workshop.data.snapshot(model.snapshot))
        gate = asyncio.Semaphore(COPIES_AT_ONCE)

        async def make(spec: SandboxSpec) -> Sandbox:
            async with gate:
                return await self._copy(user, model, stored, spec, extras)

        results = await asyncio.gather(*(make(spec) for spec in specs), return_exceptions=True)
        made = [result for result in results if isinstance(result, Sandbox)]
        failures: dict[str, HearthError] = {}
        for spec, result in zip(specs, results, strict=True):
            if isinstance(result, HearthError):
                failures[spec.name] = result
            elif isinstance(result, BaseException):
                raise result
        if failures and len(specs) == 1:
            raise failures[specs[0].name]
        if failures:
            raise CopiesFailed(made, failures)
        return made

    async def require_free(self, user: User, specs: Sequence[SandboxSpec]) -> None:
        """Refuse names that are taken before anything is done.

        Raises:
            SandboxExists: one is.
        """
        for spec in specs:
            if (existing := await self.find(user, spec.name)) is not None:
                raise SandboxExists(existing)
        await self._store.quotas.check(user.id, total(amounts_of_spec(spec, spec.disk_mib or 0) for spec in specs))

    async def find(self, user: User, name: str) -> Sandbox | None:
        """Give the user's own sandbox of a name."""
        try:
            found = await self._store.sandboxes.resolve(user.id, name)
        except NotFound:
            return None
        return found if found.spec.name == name else None

    async def _copy(
        self, user: User, model: Model, stored: StoredSnapshot, spec: SandboxSpec, extras: Extras
    ) -> Sandbox:
        image_id = stored.manifest.rootfs.id
        sandbox = new_sandbox(user, spec, image_id, self._workshop.clock.now(), parent=model.parent)
        boot = await self._images.boot_files_of(sandbox, stored.manifest.stamp)
        sandbox = sized(sandbox, boot)
        source = Source(snapshot=model.snapshot, known_as=model.known_as)
        extras = replace(extras, volumes=replace(extras.volumes, inherited=stored.manifest.volumes))
        return await outcome(self._creation.begin(sandbox, boot, source, extras=extras), sandbox)


def _released(changing: contextlib.AsyncExitStack, lock: asyncio.Lock) -> Callable[[], None]:
    """Give what frees a lock before the end of the context that holds it."""

    def free() -> None:
        changing.pop_all()
        lock.release()

    return free


def specs_of_copies(model: SandboxSpec, *, base: str, name: str | None, count: int) -> list[SandboxSpec]:
    """Name copies: ``name``, or ``base`` and some random characters; several get -1, -2 and so on.

    Raises:
        InvalidInput: ``count`` or a name is not acceptable.
    """
    check_range(count, 1, MAX_COPIES, what="count", unit="copies")
    numbers = [""] if count == 1 else [f"-{number}" for number in range(1, count + 1)]
    if name is None:
        suffix = f"-{new_id('x')[-SUFFIX_CHARACTERS:]}"
        name = base[: MAX_NAME_CHARACTERS - len(suffix) - len(numbers[-1])].rstrip("-") + suffix
    return [replace(model, name=check_name(f"{name}{number}")) for number in numbers]


def _check_copyable(placements: Sequence[VolumePlacement]) -> None:
    written = [placement.mount for placement in placements if not placement.read_only]
    if written:
        raise Conflict(
            "a sandbox that writes to volumes cannot be copied",
            details=f"writable volumes are mounted at {', '.join(written)}",
            resolution="detach them first, or attach them read-only; copies share what is only read",
            field="volumes",
        )


def model_of(user: User, sandbox: Sandbox) -> SandboxSpec:
    """Give what a user's copies of a sandbox are like; names of another's secrets say nothing of the user's own."""
    return sandbox.spec if sandbox.owner == user.id else replace(sandbox.spec, secrets=())


def inherit(spec: SandboxSpec, model: SandboxSpec) -> SandboxSpec:
    """Give the spec of a copy that somebody described: image and shape are the model's, environments are joined.

    Raises:
        Conflict: it asks for another image or shape, or for more of the network; ``field`` names which.
        InvalidInput: it asks for a smaller disk.
    """
    for field_name, shown in (("image", "image"), ("cpus", "cpus"), ("memory_mib", "memory_mb")):
        wanted, has = getattr(spec, field_name), getattr(model, field_name)
        if wanted not in (has, getattr(DEFAULTS, field_name)):
            raise Conflict(
                "a copy is of the shape of its source",
                details=f"{shown} is {wanted}, the source has {has}",
                resolution=f"leave {shown} out, or create a sandbox of its own",
                field=shown,
            )
    env = {**model.env, **spec.env}
    secrets = merged(model.secrets, spec.secrets)
    policy = inherited(spec.net_policy, model.net_policy)
    copy = replace(spec, env=env, net_policy=policy, secrets=secrets)
    disk_mib = _disk_of_copy(spec.disk_mib, model.disk_mib)
    return replace(copy, image=model.image, cpus=model.cpus, memory_mib=model.memory_mib, disk_mib=disk_mib)


def _disk_of_copy(wanted: int | None, has: int | None) -> int | None:
    if wanted is None or has is None or wanted >= has:
        return has if wanted is None else wanted
    raise InvalidInput(
        "invalid disk_size_mb",
        details=f"disk_size_mb is {wanted} MiB; the source's disk has {has}",
        resolution=f"use {has} or more, or leave it out",
        field="disk_size_mb",
    )
